/* The ring from C: order, drops, waiting, and a fork while another thread holds its lock. */
#define _GNU_SOURCE
#include "check.h"
#include "windows/ring.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

/* The next window; NULL after the timeout or a wake. */
static pyprof_window *take(int64_t timeout_ns) {
    return pyprof_ring_wait(timeout_ns) ? pyprof_ring_take() : NULL;
}

static pyprof_window *numbered(int number) {
    pyprof_window *window = pyprof_window_new(1 << 16);
    CHECK(window != NULL);
    pyprof_window_get_info(window)->start_ns = number;
    return window;
}

static int number_of(pyprof_window *window) { return (int)pyprof_window_get_info(window)->start_ns; }

static void check_order_and_drops(void) {
    pyprof_ring_set_capacity(3);
    for (int i = 1; i <= 7; i++) {
        pyprof_ring_push(numbered(i));
    }
    CHECK(pyprof_ring_dropped() == 4 && pyprof_ring_bytes() > 0);
    uint64_t told = 0;
    for (int i = 5; i <= 7; i++) {
        pyprof_window *window = take(0);
        CHECK(window != NULL && number_of(window) == i);
        told += pyprof_window_get_info(window)->dropped_windows;
        pyprof_window_free(window);
    }
    CHECK(told == 4); /* the windows that arrive tell of all that did not */
    CHECK(pyprof_ring_bytes() == 0 && take(0) == NULL && pyprof_ring_take() == NULL);
    pyprof_ring_push(numbered(8));
    pyprof_window *window = take(0);
    CHECK(pyprof_window_get_info(window)->dropped_windows == 0);
    pyprof_window_free(window);

    for (int i = 0; i < 3; i++) {
        pyprof_ring_push(numbered(i));
    }
    pyprof_ring_set_capacity(1); /* takes effect with the next push */
    pyprof_ring_push(numbered(9));
    window = take(0);
    CHECK(number_of(window) == 9 && pyprof_window_get_info(window)->dropped_windows == 3);
    pyprof_window_free(window);
    CHECK(take(0) == NULL && pyprof_ring_dropped() == 7);

    pyprof_ring_push(numbered(1));
    pyprof_ring_clear();
    CHECK(take(0) == NULL && pyprof_ring_dropped() == 0 && pyprof_ring_bytes() == 0);
}

static void check_timeout(void) {
    int64_t before = now_ns();
    CHECK(take(SECOND / 20) == NULL);
    CHECK(now_ns() - before >= SECOND / 20);
}

static void *take_for_long(void *result) {
    *(pyprof_window **)result = take(INT64_MAX);
    return NULL;
}

static void ignore(int signal) { (void)signal; }

/* A wait without end is ended by a push or a wake; a signal does not end it. */
static void check_waiting(void) {
    struct sigaction action = {.sa_handler = ignore};
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < 200; i++) {
        pthread_t taker;
        pyprof_window *taken = NULL;
        CHECK(pthread_create(&taker, NULL, take_for_long, &taken) == 0);
        pthread_kill(taker, SIGUSR1);
        if (i % 2 == 0) {
            pyprof_ring_push(numbered(i));
        } else {
            pyprof_ring_wake();
        }
        CHECK(pthread_join(taker, NULL) == 0);
        CHECK((taken != NULL) == (i % 2 == 0));
        pyprof_window_free(taken);
    }
    /* Nobody waits: the wake is for the next take that would, and for that one only. */
    pyprof_ring_wake();
    pyprof_ring_push(numbered(1));
    pyprof_window *window = take(60 * SECOND);
    CHECK(window != NULL);
    pyprof_window_free(window);
    int64_t before = now_ns();
    CHECK(take(60 * SECOND) == NULL);
    CHECK(now_ns() - before < 30 * SECOND);
    CHECK(take(SECOND / 100) == NULL);
    CHECK(now_ns() - before >= SECOND / 100);
}

enum { PUSHES = 20000 };

static void *push_many(void *unused) {
    for (int i = 1; i <= PUSHES; i++) {
        pyprof_ring_push(numbered(i));
    }
    pyprof_ring_push(numbered(0)); /* the end */
    return unused;
}

/* Each window arrives once, in order, or is told of as dropped by those that arrive. */
static void check_two_threads(void) {
    pyprof_ring_set_capacity(4);
    pyprof_ring_clear();
    pthread_t pusher;
    CHECK(pthread_create(&pusher, NULL, push_many, NULL) == 0);
    int last = 0;
    uint64_t arrived = 0, told = 0;
    for (;;) {
        pyprof_window *window = take(60 * SECOND);
        CHECK(window != NULL);
        int number = number_of(window);
        told += pyprof_window_get_info(window)->dropped_windows;
        pyprof_window_free(window);
        if (number == 0) {
            break;
        }
        CHECK(number > last);
        last = number;
        arrived++;
    }
    CHECK(pthread_join(pusher, NULL) == 0);
    CHECK(arrived + told == PUSHES && told == pyprof_ring_dropped());
    printf("%llu arrived, %llu dropped\n", (unsigned long long)arrived, (unsigned long long)told);
}

static _Atomic int stop;

static void *push_and_take(void *unused) {
    while (!stop) {
        pyprof_ring_push(numbered(1));
        pyprof_window_free(pyprof_ring_take());
    }
    return unused;
}

/* The child of a fork has a ring that is empty and works, whoever held the lock. */
static void check_fork(void) {
    pthread_t busy[2];
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_create(&busy[i], NULL, push_and_take, NULL) == 0);
    }
    for (int i = 0; i < 300; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(30);
            pyprof_ring_reset_child();
            CHECK(take(0) == NULL && pyprof_ring_bytes() == 0 && pyprof_ring_dropped() == 0);
            pyprof_ring_push(numbered(5));
            pyprof_window *window = take(SECOND);
            CHECK(window != NULL && number_of(window) == 5);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    stop = 1;
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(busy[i], NULL) == 0);
    }
    pyprof_ring_clear();
}

int main(void) {
    check_order_and_drops();
    check_timeout();
    check_waiting();
    check_two_threads();
    check_fork();
    return 0;
}
