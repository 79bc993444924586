/* A hook in C: maps a page, filled with FILL, where the tiny guest's handler would not know what to do, skips the instructions
 * that are there to be skipped, raises #GP where that is wanted, and passes otherwise. */

#include "vector14_hook.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef FILL
#define FILL 0x5a
#endif

/* The guest's windows of 1 GiB (guest/abi/src/window.rs). */
enum { HIDDEN = 1, SKIP = 8, RAISE = 9 };

struct hook {
    atomic_ulong mapped;
    char everywhere;
};

static void say(vector14_sink *text, const char *words) {
    text->write(text->context, words, strlen(words));
}

/* {"everywhere": true} maps pages in all windows. */
static vector14_status check(const vector14_options *options, vector14_options_error *error) {
    if (!memmem(options->json.bytes, options->json.length, "\"everywhere\"", 12)) {
        return VECTOR14_STATUS_OK;
    }
    if (memmem(options->json.bytes, options->json.length, "true", 4)) {
        return VECTOR14_STATUS_OK;
    }
    say(error->key, "everywhere");
    say(error->message, "must be true, or not be there");
    return VECTOR14_STATUS_FAILED;
}

static vector14_status create(const vector14_options *options, void **hook, vector14_options_error *error) {
    vector14_status status = check(options, error);
    struct hook *mine = calloc(1, sizeof *mine);
    if (!mine || status != VECTOR14_STATUS_OK) {
        free(mine);
        return VECTOR14_STATUS_FAILED;
    }
    mine->everywhere = memmem(options->json.bytes, options->json.length, "true", 4) != NULL;
    *hook = mine;
    return VECTOR14_STATUS_OK;
}

static vector14_status failed(vector14_guest *guest, vector14_guest_result result, vector14_sink *text) {
    guest->calls->explain(guest, result, text);
    return VECTOR14_STATUS_FAILED;
}

static vector14_status map(struct hook *mine, uint64_t page, vector14_guest *guest, vector14_sink *text) {
    uint64_t frame;
    vector14_guest_result result = guest->calls->allocate_page(guest, &frame);
    if (result.status != VECTOR14_GUEST_STATUS_OK) {
        return failed(guest, result, text);
    }
    unsigned char content[4096];
    memset(content, FILL, sizeof content);
    guest->calls->write_physical(guest, frame, content, sizeof content);
    result = guest->calls->map(guest, page, frame, 1 | 2);
    if (result.status != VECTOR14_GUEST_STATUS_OK) {
        return failed(guest, result, text);
    }
    atomic_fetch_add(&mine->mapped, 1);
    return VECTOR14_STATUS_OK;
}

static vector14_status on_fault(void *hook, const vector14_fault *fault, vector14_guest *guest,
                                vector14_verdict *verdict, vector14_sink *text) {
    struct hook *mine = hook;
    uint64_t window = (fault->address - 0x1000000000) >> 30;
    if (window == HIDDEN || mine->everywhere) {
        verdict->kind = VECTOR14_VERDICT_RESOLVE;
        return map(mine, fault->address & ~(uint64_t)4095, guest, text);
    }
    if (window == SKIP) {
        uint32_t length = 0;
        vector14_guest_result result = guest->calls->instruction(guest, text, &length);
        if (result.status != VECTOR14_GUEST_STATUS_OK) {
            return failed(guest, result, text);
        }
        verdict->kind = VECTOR14_VERDICT_SKIP;
    }
    if (window == RAISE) {
        verdict->kind = VECTOR14_VERDICT_RAISE;
        verdict->vector = 13;
        verdict->has_error_code = 1;
        verdict->error_code = 0x18;
    }
    return VECTOR14_STATUS_OK;
}

static vector14_status on_end(void *hook, vector14_guest *guest, vector14_sink *text) {
    struct hook *mine = hook;
    char report[128];
    (void)guest;
    snprintf(report, sizeof report, "{\"tables\": [{\"title\": \"mapped\", \"columns\": [\"pages\"], \"rows\": [[\"%lu\"]]}]}",
             atomic_load(&mine->mapped));
    say(text, report);
    return VECTOR14_STATUS_OK;
}

static const vector14_option_doc OPTIONS[] = {
    {VECTOR14_TEXT("everywhere"), VECTOR14_TEXT("bool"), VECTOR14_TEXT("false"), VECTOR14_TEXT("maps pages in all windows")},
};

const vector14_descriptor vector14_hook = {
    .prefix = VECTOR14_PREFIX,
    .name = VECTOR14_TEXT("subject-c"),
    .summary = VECTOR14_TEXT("a hook in C"),
    .options = OPTIONS,
    .option_count = 1,
    .check = check,
    .create = create,
    .on_fault = on_fault,
    .on_end = on_end,
    .destroy = free,
};
