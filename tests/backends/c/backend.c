/* A backend in C against the header alone. It answers every call before `start` returns: `version` if told to, and that
 * it does not support the others. What a test wants different is defined on the compiler's command line. */
#include "stanchion_backend.h"

#include <unistd.h>

#ifndef MAGIC
#define MAGIC ST_MAGIC
#endif
#ifndef SIZE
#define SIZE sizeof(st_backend)
#endif
#ifndef MAJOR
#define MAJOR ST_MAJOR
#endif
#ifndef MINOR
#define MINOR ST_MINOR
#endif
#ifndef FLAGS
#define FLAGS ST_FLAG_UNWINDS
#endif
#ifndef NAME
#define NAME "plain"
#endif

#define TEXT(text) {(const uint8_t *)(text), sizeof(text) - 1}

static const st_slice NOTHING = TEXT("null");
static const st_slice REFUSAL = TEXT("a backend of forty lines does not do that");
#ifdef VERSION
static const st_slice ANSWER = TEXT(VERSION);
#endif

static int handle;

static void *open_backend(const st_host *host, st_slice request, st_reply reply) {
    (void)host;
    (void)request;
    reply.done(reply.ctx, 0, NOTHING);
    return &handle;
}

static void start(void *backend, const st_call *call) {
    (void)backend;
    for (size_t i = 0; i < call->fd_count; i++) {
        if (call->fds[i] >= 0) {
            close(call->fds[i]);
        }
    }
#ifdef VERSION
    if (call->method == 1) {
        call->reply.done(call->reply.ctx, 0, ANSWER);
        return;
    }
#endif
    call->reply.done(call->reply.ctx, 9, REFUSAL);
}

static void cancel(void *backend, uint64_t id) {
    (void)backend;
    (void)id;
}

static void close_backend(void *backend, st_reply reply) {
    (void)backend;
    reply.done(reply.ctx, 0, NOTHING);
}

/* As a later minor version would have it: more at the end. */
typedef struct {
    st_backend known;
    uint64_t unknown[4];
} descriptor;

#ifndef SYMBOL
#define SYMBOL stanchion_backend_plain
#endif

const descriptor SYMBOL = {
    {MAGIC, SIZE, MAJOR, MINOR, FLAGS, TEXT(NAME), TEXT("0.1"), TEXT("cc"), open_backend, start, cancel, close_backend},
    {1, 2, 3, 4},
};
