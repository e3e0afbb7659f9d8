/* The component model's canonical ABI by hand: layouts and export names of sibyl:resolver@0.1.0. You need not change
 * it. The node makes a component of the module; plain export names are enough for it. */
#include "sibyl.h"

#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(name)))

_Static_assert(sizeof(sibyl_sibling) == 32, "the layout of a sibling");
_Static_assert(sizeof(sibyl_attribute) == 16, "the layout of an attribute");

/* result<resolution, failure> */
struct sibyl_answer {
    uint8_t is_failure;
    uint32_t which;
    union {
        sibyl_bytes bytes;
        uint32_t index;
        struct { uint32_t index; sibyl_bytes message; } bad;
    } of;
};
_Static_assert(sizeof(sibyl_answer) == 20, "the layout of an answer");

/* result<_, string> */
typedef struct { uint8_t is_refused; sibyl_bytes message; } verdict;

typedef struct {
    sibyl_bytes name, version, summary;
    struct { const sibyl_bytes *at; size_t count; } media_types;
    sibyl_option config_schema;
} description;

__attribute__((import_module("sibyl:resolver/logging@0.1.0"), import_name("log")))
void host_log(uint32_t level, const char *at, size_t length);

void sibyl_log(enum sibyl_level level, const char *message) {
    host_log(level, message, strlen(message));
}

_Noreturn void sibyl_crash(const char *message) {
    sibyl_log(SIBYL_ERROR, message);
    __builtin_trap();
}

static void *allocate(size_t size) {
    void *at = malloc(size);
    if (at == NULL && size > 0) sibyl_crash("out of memory");
    return at;
}

EXPORT("cabi_realloc")
void *cabi_realloc(void *old, size_t old_size, size_t alignment, size_t size) {
    (void)old_size;
    if (size == 0) return (void *)alignment;
    void *at = realloc(old, size);
    if (at == NULL) sibyl_crash("out of memory");
    return at;
}

static sibyl_bytes string(const char *text) {
    return (sibyl_bytes){(const uint8_t *)text, text == NULL ? 0 : strlen(text)};
}

static sibyl_answer *answer(uint8_t is_failure, uint32_t which) {
    sibyl_answer *answer = allocate(sizeof *answer);
    *answer = (sibyl_answer){.is_failure = is_failure, .which = which};
    return answer;
}

static const sibyl_answer *failure(uint32_t which, const char *message) {
    sibyl_answer *failed = answer(1, which);
    failed->of.bytes = string(message);
    return failed;
}

const sibyl_answer *sibyl_merged(sibyl_bytes value) {
    sibyl_answer *merged = answer(0, 0);
    merged->of.bytes = value;
    return merged;
}

const sibyl_answer *sibyl_pick(uint32_t index) {
    sibyl_answer *pick = answer(0, 1);
    pick->of.index = index;
    return pick;
}

const sibyl_answer *sibyl_keep(const uint32_t *indexes, size_t count) {
    sibyl_answer *keep = answer(0, 2);
    keep->of.bytes = (sibyl_bytes){(const uint8_t *)indexes, count};
    return keep;
}

const sibyl_answer *sibyl_delete(void) {
    return answer(0, 3);
}

const sibyl_answer *sibyl_malformed(uint32_t index, const char *message) {
    sibyl_answer *malformed = answer(1, 0);
    malformed->of.bad.index = index;
    malformed->of.bad.message = string(message);
    return malformed;
}

const sibyl_answer *sibyl_bad_config(const char *message) {
    return failure(1, message);
}

const sibyl_answer *sibyl_declined(const char *message) {
    return failure(2, message);
}

const sibyl_answer *sibyl_failed(const char *message) {
    return failure(3, message);
}

/* A context, as it comes in nine numbers. */
#define CONTEXT \
    const uint8_t *bucket, size_t bucket_length, const uint8_t *key, size_t key_length, uint32_t has_config, \
        const uint8_t *config, size_t config_length, const sibyl_attribute *attributes, size_t attribute_count
#define CONTEXT_VALUE \
    &(sibyl_context) { \
        {bucket, bucket_length}, {key, key_length}, {has_config, {config, config_length}}, {attributes, attribute_count} \
    }

EXPORT("resolve")
const sibyl_answer *exported_resolve(CONTEXT, const sibyl_sibling *siblings, size_t count) {
    return sibyl_resolve(CONTEXT_VALUE, siblings, count);
}

EXPORT("check-value")
const verdict *exported_check_value(CONTEXT, const uint8_t *value, size_t length) {
    const char *refused = sibyl_check_value(CONTEXT_VALUE, (sibyl_bytes){value, length});
    verdict *said = allocate(sizeof *said);
    *said = (verdict){refused != NULL, string(refused)};
    return said;
}

EXPORT("describe")
const description *exported_describe(void) {
    sibyl_description own = sibyl_describe();
    size_t count = 0;
    while (own.media_types[count] != NULL) count++;
    sibyl_bytes *media_types = allocate(count * sizeof *media_types);
    for (size_t i = 0; i < count; i++) media_types[i] = string(own.media_types[i]);
    description *said = allocate(sizeof *said);
    *said = (description){
        string(own.name), string(own.version), string(own.summary),
        {media_types, count}, {own.config_schema != NULL, string(own.config_schema)},
    };
    return said;
}
