/* my-resolver: text as a set of lines. Its merge has every line that any sibling has, once, sorted.
 *
 * A lattice: a union does not care about grouping, order and repetition. Taking a line away holds only if nobody who
 * writes at the same time still has it. */
#include "sibyl.h"

#include <stdlib.h>
#include <string.h>

static const char *const NOT_TEXT = "a zero byte: these are not lines of text";

static bool equal(sibyl_bytes one, sibyl_bytes other) {
    return one.length == other.length && memcmp(one.at, other.at, one.length) == 0;
}

static bool is_text(sibyl_bytes value) {
    return value.length == 0 || memchr(value.at, 0, value.length) == NULL;
}

/* By bytes, and a beginning of a line before the line. */
static int compare(const void *left, const void *right) {
    const sibyl_bytes *one = left, *other = right;
    size_t common = one->length < other->length ? one->length : other->length;
    int order = memcmp(one->at, other->at, common);
    if (order != 0) return order;
    return (one->length > other->length) - (one->length < other->length);
}

/* Adds the lines of a value to `lines` from `count` on, and says how many there are then. */
static size_t add_lines(sibyl_bytes value, sibyl_bytes *lines, size_t count) {
    size_t start = 0;
    for (size_t i = 0; i <= value.length; i++) {
        if (i < value.length && value.at[i] != '\n') continue;
        if (i > start) lines[count++] = (sibyl_bytes){value.at + start, i - start};
        start = i + 1;
    }
    return count;
}

const sibyl_answer *sibyl_resolve(const sibyl_context *context, const sibyl_sibling *siblings, size_t count) {
    (void)context;
    size_t values = 0, bytes = 0;
    bool alike = true;
    for (size_t i = 0; i < count; i++) {
        if (!siblings[i].value.is_some) continue;
        values++;
        bytes += siblings[i].value.value.length;
        alike = alike && siblings[0].value.is_some && equal(siblings[i].value.value, siblings[0].value.value);
    }
    if (values == 0) return sibyl_delete();
    /* A merge of equal values is that value, byte for byte. */
    if (alike && values == count) return sibyl_pick(count - 1);

    /* Each line but an unfinished last one takes two bytes or more. */
    sibyl_bytes *lines = malloc((bytes / 2 + count) * sizeof *lines);
    uint8_t *union_at = malloc(bytes + count);
    if (lines == NULL || union_at == NULL) sibyl_crash("out of memory");
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (!siblings[i].value.is_some) continue;
        if (!is_text(siblings[i].value.value)) return sibyl_malformed(i, NOT_TEXT);
        found = add_lines(siblings[i].value.value, lines, found);
    }
    qsort(lines, found, sizeof *lines, compare);
    size_t length = 0;
    for (size_t i = 0; i < found; i++) {
        if (i > 0 && equal(lines[i], lines[i - 1])) continue;
        memcpy(union_at + length, lines[i].at, lines[i].length);
        length += lines[i].length;
        union_at[length++] = '\n';
    }
    return sibyl_merged((sibyl_bytes){union_at, length});
}

const char *sibyl_check_value(const sibyl_context *context, sibyl_bytes value) {
    (void)context;
    return is_text(value) ? NULL : NOT_TEXT;
}

sibyl_description sibyl_describe(void) {
    static const char *const media_types[] = {"text/plain", NULL};
    return (sibyl_description){
        .name = "my-resolver",
        .version = "0.1.0",
        .summary = "Text as a set of lines: keeps every line of every sibling, once, sorted.",
        .media_types = media_types,
    };
}
