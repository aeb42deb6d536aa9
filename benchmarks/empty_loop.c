/* The floor that every sampling thread stands on: a thread that wakes at an absolute deadline, and no more. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

static atomic_int ended;
static pthread_t thread;
static int64_t period_ns;

static void *loop(void *argument) {
    struct timespec next;
    (void)argument;
    clock_gettime(CLOCK_MONOTONIC, &next);
    while (!atomic_load(&ended)) {
        int64_t ns = next.tv_nsec + period_ns;
        next.tv_sec += ns / 1000000000;
        next.tv_nsec = ns % 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    return NULL;
}

int start(int64_t period) {
    period_ns = period;
    atomic_store(&ended, 0);
    return pthread_create(&thread, NULL, loop, NULL);
}

int stop(void) {
    atomic_store(&ended, 1);
    return pthread_join(thread, NULL);
}
