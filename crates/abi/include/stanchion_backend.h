/* Stanchion's backend boundary, version 1.0. See the crate stanchion-abi for the rules. */
#ifndef STANCHION_BACKEND_H
#define STANCHION_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#define ST_MAGIC UINT64_C(0x004e48434e415453) /* "STANCHN\0", little endian */
#define ST_MAJOR 1
#define ST_MINOR 0
#define ST_FLAG_UNWINDS UINT64_C(1)

typedef struct {
    const uint8_t *ptr;
    size_t len;
} st_slice;

typedef struct {
    void *ctx;
    uint32_t (*item)(void *ctx, st_slice item);
    void (*done)(void *ctx, uint32_t code, st_slice body);
} st_reply;

typedef struct {
    uint32_t size;
    uint32_t method;
    uint64_t id;
    uint64_t deadline_ms;
    st_slice request;
    const int32_t *fds;
    size_t fd_count;
    st_reply reply;
} st_call;

typedef struct {
    uint32_t size;
    uint16_t minor;
    uint16_t reserved;
    void *ctx;
    uint32_t (*enabled)(void *ctx, uint32_t level, st_slice target);
    void (*log)(void *ctx, uint32_t level, uint64_t call, st_slice target, st_slice record);
} st_host;

typedef struct {
    uint64_t magic;
    uint32_t size;
    uint16_t major;
    uint16_t minor;
    uint64_t flags;
    st_slice name;
    st_slice version;
    st_slice built_by;
    void *(*open)(const st_host *host, st_slice request, st_reply reply);
    void (*start)(void *backend, const st_call *call);
    void (*cancel)(void *backend, uint64_t id);
    void (*close)(void *backend, st_reply reply);
} st_backend;

/* The layout is the contract. */
#ifdef __cplusplus
#define ST_ASSERT static_assert
#else
#define ST_ASSERT _Static_assert
#endif
ST_ASSERT(sizeof(st_slice) == 16, "st_slice");
ST_ASSERT(sizeof(st_reply) == 24, "st_reply");
ST_ASSERT(sizeof(st_call) == 80 && offsetof(st_call, request) == 24 && offsetof(st_call, reply) == 56, "st_call");
ST_ASSERT(sizeof(st_host) == 32 && offsetof(st_host, enabled) == 16, "st_host");
ST_ASSERT(sizeof(st_backend) == 104 && offsetof(st_backend, open) == 72, "st_backend");

#endif
