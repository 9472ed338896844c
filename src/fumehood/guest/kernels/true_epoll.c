/*
 * Keeps a kernel from events that are not so: loaded before its own libraries (runtimes.py).
 *
 * gVisor keeps, in a checkpoint, what an epoll was told to watch no longer; restored a second time, that is watched
 * again, with what it was known by. Node.js gets such an event again and again, and spends a whole processor on it, or
 * takes a connection just opened for one that has failed. For Deno it is a pointer to what is there no longer.
 *
 * So what is watched is written down here too. An event that cannot be is left out, and the epoll made anew.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MORE 64
#define NUMBERS 4
#define TRIES 100000
#define SIGNALS_BYTES 8

struct watched {
    int is_watched;
    struct epoll_event event;
    /* Which file it is: its number may be given to another. */
    dev_t device;
    ino_t inode;
};

struct instance {
    int numbers[NUMBERS]; /* Its descriptors: Deno's is duplicated. 0 is none. */
    int size;
    struct watched *files; /* By number. */
    int is_known;          /* Whether all that it watches is among them. */
    struct instance *next;
};

static struct instance *instances;
static char is_taken;

/* Whether the lock was to be had. In a forked child it may be held for good, by a thread that is not there. */
static int take_lock(void)
{
    for (int tries = 0; tries < TRIES; tries++) {
        if (!__atomic_test_and_set(&is_taken, __ATOMIC_ACQUIRE))
            return 1;
        sched_yield();
    }
    return 0;
}

static void give_lock_back(void)
{
    __atomic_clear(&is_taken, __ATOMIC_RELEASE);
}

/* Called so because older C libraries have it by another name. */
static int tell(int file, struct stat *status)
{
    return syscall(SYS_fstat, file, status);
}

static struct instance *find(int epoll)
{
    for (struct instance *each = instances; each; each = each->next)
        for (int place = 0; place < NUMBERS; place++)
            if (epoll > 0 && each->numbers[place] == epoll)
                return each;
    return NULL;
}

/* Have an instance known by one number more, and no other by it: that was closed. */
static void name(struct instance *instance, int epoll)
{
    struct instance *former = find(epoll);
    for (int place = 0; former && place < NUMBERS; place++)
        if (former->numbers[place] == epoll)
            former->numbers[place] = 0;
    for (int place = 0; place < NUMBERS; place++)
        if (instance->numbers[place] == 0) {
            instance->numbers[place] = epoll;
            return;
        }
    /* By too many: what is watched through this one is not seen. */
    instance->is_known = 0;
}

static int is_closed(const struct instance *instance)
{
    for (int place = 0; place < NUMBERS; place++)
        if (instance->numbers[place])
            return 0;
    return 1;
}

/* A new instance, in the place of one that is over, if there is any. */
static void make(int epoll)
{
    struct instance *made = instances;
    while (made && !is_closed(made))
        made = made->next;
    if (!made) {
        made = calloc(1, sizeof *made);
        if (!made)
            return;
        made->next = instances;
        instances = made;
    }
    memset(made->files, 0, made->size * sizeof *made->files);
    made->is_known = 1;
    name(made, epoll);
}

static int has_room(struct instance *instance, int file)
{
    if (file < instance->size)
        return 1;
    int size = file + MORE;
    struct watched *files = realloc(instance->files, size * sizeof *files);
    if (!files)
        return 0;
    memset(files + instance->size, 0, (size - instance->size) * sizeof *files);
    instance->files = files;
    instance->size = size;
    return 1;
}

static int control(int epoll, int operation, int file, struct epoll_event *event)
{
    return syscall(SYS_epoll_ctl, epoll, operation, file, event);
}

static void note(struct instance *instance, int operation, int file, const struct epoll_event *event)
{
    struct stat status;
    if (operation == EPOLL_CTL_DEL) {
        if (file >= 0 && file < instance->size)
            instance->files[file].is_watched = 0;
        return;
    }
    if (!has_room(instance, file) || tell(file, &status) != 0) {
        instance->is_known = 0;
        return;
    }
    instance->files[file] = (struct watched){1, *event, status.st_dev, status.st_ino};
}

static int is_the_file(int file, const struct watched *watched)
{
    struct stat status;
    return tell(file, &status) == 0 && status.st_dev == watched->device && status.st_ino == watched->inode;
}

static int is_of(const struct instance *instance, int file, const struct epoll_event *event)
{
    return file >= 0 && file < instance->size && instance->files[file].is_watched &&
           instance->files[file].event.data.u64 == event->data.u64;
}

/* The descriptor that an event is of; -1 if it is of none that is watched. */
static int file_of(const struct instance *instance, const struct epoll_event *event)
{
    /* Mostly it is known by its number. */
    if (is_of(instance, event->data.fd, event))
        return event->data.fd;
    for (int file = 0; file < instance->size; file++)
        if (is_of(instance, file, event))
            return file;
    return -1;
}

static int may_be(const struct instance *instance, const struct epoll_event *event)
{
    int file = file_of(instance, event);
    unsigned failure = event->events & (EPOLLERR | EPOLLHUP);
    if (file < 0)
        return 0;
    if (!failure)
        return 1;
    /* It may be of an earlier one that was known by the same. */
    struct pollfd now = {file, POLLIN | POLLOUT, 0};
    poll(&now, 1, 0);
    return (now.revents & failure) != 0;
}

static void make_anew(struct instance *instance)
{
    struct epoll_event nothing = {0};
    int made = syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
    if (made < 0)
        return;
    for (int file = 0; file < instance->size; file++) {
        struct watched *watched = &instance->files[file];
        if (watched->is_watched)
            watched->is_watched = is_the_file(file, watched) && control(made, EPOLL_CTL_ADD, file, &watched->event) == 0;
    }
    for (int place = 0; place < NUMBERS; place++) {
        int number = instance->numbers[place];
        /* What is no epoll has another complaint than that it does not watch this one: the number is another's now. */
        if (number && control(number, EPOLL_CTL_DEL, made, &nothing) != 0 && errno == ENOENT)
            syscall(SYS_dup3, made, number, O_CLOEXEC);
    }
    close(made);
}

/* How many of the events may be; they come first then. */
static int sift(int epoll, struct epoll_event *events, int count)
{
    int kept = 0;
    if (!take_lock())
        return count;
    struct instance *instance = find(epoll);
    if (!instance || !instance->is_known) {
        kept = count;
    } else {
        for (int each = 0; each < count; each++)
            if (may_be(instance, &events[each]))
                events[kept++] = events[each];
        if (kept < count)
            make_anew(instance);
    }
    give_lock_back();
    return kept;
}

int epoll_create1(int flags)
{
    int epoll = syscall(SYS_epoll_create1, flags);
    int error = errno;
    if (epoll >= 0 && take_lock()) {
        make(epoll);
        give_lock_back();
    }
    errno = error;
    return epoll;
}

int epoll_create(int size)
{
    if (size > 0)
        return epoll_create1(0);
    errno = EINVAL;
    return -1;
}

int fcntl(int file, int operation, ...)
{
    va_list rest;
    va_start(rest, operation);
    long argument = va_arg(rest, long);
    va_end(rest);
    int result = syscall(SYS_fcntl, file, operation, argument);
    int error = errno;
    if (result >= 0 && (operation == F_DUPFD || operation == F_DUPFD_CLOEXEC) && take_lock()) {
        struct instance *instance = find(file);
        if (instance)
            name(instance, result);
        give_lock_back();
    }
    errno = error;
    return result;
}

int fcntl64(int file, int operation, ...) __attribute__((alias("fcntl")));

int epoll_ctl(int epoll, int operation, int file, struct epoll_event *event)
{
    int is_locked = take_lock();
    int result = control(epoll, operation, file, event);
    int error = errno;
    struct instance *instance = find(epoll);
    if (instance && !is_locked)
        instance->is_known = 0;
    else if (instance && (result == 0 || operation == EPOLL_CTL_DEL))
        note(instance, operation, file, event);
    if (is_locked)
        give_lock_back();
    errno = error;
    return result;
}

int epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout, const sigset_t *mask)
{
    int count = syscall(SYS_epoll_pwait, epoll, events, most, timeout, mask, SIGNALS_BYTES);
    if (count <= 0)
        return count;
    count = sift(epoll, events, count);
    if (count > 0)
        return count;
    /* It is to wait again, for what is left of its time. */
    errno = EINTR;
    return -1;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    return epoll_pwait(epoll, events, most, timeout, NULL);
}
