/* What the node calls and what it is answered, for C. Strings and byte strings have a length and no zero at the end.
 *
 * Every call has a fresh instance: memory comes from malloc and need not be freed, and no static variable outlives a
 * call. You write sibyl_resolve, sibyl_check_value and sibyl_describe; sibyl.c does the rest. */
#ifndef SIBYL_H
#define SIBYL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct { const uint8_t *at; size_t length; } sibyl_bytes;
typedef struct { sibyl_bytes name, value; } sibyl_attribute;
typedef struct { bool is_some; sibyl_bytes value; } sibyl_option;
typedef struct { const sibyl_attribute *at; size_t count; } sibyl_attributes;

/* One of the concurrent versions of a key; without a value the client deleted it. */
typedef struct {
    sibyl_option value;
    uint64_t modified_at; /* milliseconds since 1970, equal on every replica */
    sibyl_attributes attributes;
} sibyl_sibling;

/* Where the conflict is, and the bucket's `resolver.config` as JSON text. */
typedef struct {
    sibyl_bytes bucket, key;
    sibyl_option config;
    sibyl_attributes attributes;
} sibyl_context;

typedef struct sibyl_answer sibyl_answer;

/* What shall become of the siblings. */
const sibyl_answer *sibyl_merged(sibyl_bytes value);
const sibyl_answer *sibyl_pick(uint32_t index);
const sibyl_answer *sibyl_keep(const uint32_t *indexes, size_t count);
const sibyl_answer *sibyl_delete(void);
/* Why there is no resolution; the siblings stay as they are. */
const sibyl_answer *sibyl_malformed(uint32_t index, const char *message);
const sibyl_answer *sibyl_bad_config(const char *message);
const sibyl_answer *sibyl_declined(const char *message);
const sibyl_answer *sibyl_failed(const char *message);

typedef struct {
    const char *name, *version, *summary;
    const char *const *media_types; /* ends with NULL */
    const char *config_schema;      /* JSON Schema, or NULL */
} sibyl_description;

/* Yours. The check answers NULL to accept a value, or why it is refused. */
const sibyl_answer *sibyl_resolve(const sibyl_context *context, const sibyl_sibling *siblings, size_t count);
const char *sibyl_check_value(const sibyl_context *context, sibyl_bytes value);
sibyl_description sibyl_describe(void);

enum sibyl_level { SIBYL_DEBUG, SIBYL_INFO, SIBYL_WARN, SIBYL_ERROR };
void sibyl_log(enum sibyl_level level, const char *message);
/* Logs the message and stops the merge: it fails, and the siblings stay. */
_Noreturn void sibyl_crash(const char *message);

#endif
