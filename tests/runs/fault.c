/* Loaded before a process (LD_PRELOAD), lets a step of writing a checkpoint fail as on a full disk,
   or kills the process in it. FAULT says which, and how many such steps go well before:
   "full|kill Create|Write|Sync|Rename|SyncFolder N". Checkpoints are then written in halves, so that
   there is a middle to fail in. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int ends_with(const char* path, const char* end) {
    size_t length = strlen(path), tail = strlen(end);
    return length >= tail && strcmp(path + length - tail, end) == 0;
}

/* Whether this is a checkpoint that is not whole yet. */
static int is_temporary(const char* path) {
    return strstr(path, "/checkpoints/.") && ends_with(path, ".tmp");
}

static void path_of(int file, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

/* Whether this step fails, with errno set; a step in which the process is to die does not return. */
static int fails(const char* step) {
    static atomic_int seen;
    char kind[8], wanted[16];
    int well;
    const char* fault = getenv("FAULT");
    if (!fault || sscanf(fault, "%7s %15s %d", kind, wanted, &well) != 3) return 0;
    if (strcmp(step, wanted) != 0 || atomic_fetch_add(&seen, 1) != well) return 0;
    if (strcmp(kind, "kill") == 0) kill(getpid(), SIGKILL);
    errno = ENOSPC;
    return 1;
}

int open64(const char* path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    if ((flags & O_CREAT) && is_temporary(path) && fails("Create")) return -1;
    return NEXT(open64)(path, flags, mode);
}

ssize_t write(int file, const void* bytes, size_t count) {
    char path[PATH_MAX];
    path_of(file, path);
    if (is_temporary(path)) {
        if (fails("Write")) return -1;
        count -= count / 2;
    }
    return NEXT(write)(file, bytes, count);
}

int fsync(int file) {
    char path[PATH_MAX];
    path_of(file, path);
    if (is_temporary(path) && fails("Sync")) return -1;
    if (ends_with(path, "/checkpoints") && fails("SyncFolder")) return -1;
    return NEXT(fsync)(file);
}

int rename(const char* from, const char* to) {
    if (is_temporary(from) && fails("Rename")) return -1;
    return NEXT(rename)(from, to);
}
