// urn:cascade:activity:fingerprint_c: the FNV-1a hash of the input's JSON text.
//
// An activity in C: the bindings are `wit-bindgen c`'s, the rest is this function.
// It calls nothing but the log, so it imports nothing else, and is pure.

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bindings/activity.h"

bool exports_activity_handle(activity_context_t *context, activity_string_t *input,
                             activity_string_t *ret, activity_activity_error_t *err) {
    if (input->len == 4 && memcmp(input->ptr, "null", 4) == 0) {
        activity_string_dup(&err->name, "NothingToHash");
        activity_string_dup(&err->message, "the input is null");
        err->retryable.is_some = true;
        err->retryable.val = false;
        err->details.is_some = false;
        activity_context_free(context);
        activity_string_free(input);
        return false;
    }
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < input->len; i++) {
        hash = (hash ^ input->ptr[i]) * 0x100000001b3u;
    }
    char text[80];
    snprintf(text, sizeof text, "{\"fnv1a64\":\"%016" PRIx64 "\",\"bytes\":%zu}", hash, input->len);

    activity_string_t line;
    activity_string_set(&line, "hashed");
    cascade_activity_log_write(CASCADE_ACTIVITY_LOG_LEVEL_INFO, &line);

    activity_string_dup(ret, text);
    activity_context_free(context);
    activity_string_free(input);
    return true;
}
