/* The governor against simulated ticks: what they cost, what else pyprof uses, and how long the clock says.
 */
#include "check.h"
#include "sampling/governor.h"

#define MS INT64_C(1000000)
#define SECOND INT64_C(1000000000)

typedef struct {
    pyprof_governor governor;
    pyprof_usage usage;
    int64_t tick_ns;     /* cost of a tick, on average: half to one and a half of it, at random */
    int64_t upload_ns;   /* cost of an upload, one in ten seconds */
    int64_t uploaded_ns; /* when */
    unsigned changes, reviews;
    uint64_t random;
} simulation;

static simulation begin(int64_t period_ns, double share, int64_t tick_ns) {
    simulation s = {.tick_ns = tick_ns, .random = 1};
    pyprof_governor_init(&s.governor, period_ns, share);
    s.usage = (pyprof_usage){.now_ns = 77 * SECOND, .sampling_ns = 5 * MS, .own_ns = 9 * MS, .ticks = 1234};
    pyprof_governor_begin(&s.governor, &s.usage);
    s.uploaded_ns = s.usage.now_ns;
    return s;
}

static void use(simulation *s, int64_t ns, int64_t sampling_ns) {
    s->usage.own_ns += ns;
    s->usage.sampling_ns += sampling_ns;
}

static void tick(simulation *s) {
    const int64_t gap =
        s->governor.period_ns / 10 + next_random(&s->random) % (s->governor.period_ns * 9 / 5);
    const int64_t cost = s->tick_ns / 2 + next_random(&s->random) % (s->tick_ns + 1);
    s->usage.now_ns += gap > cost ? gap : cost; /* one that takes longer than the gap delays the next */
    s->usage.ticks++;
    use(s, cost, cost);
    if (s->usage.now_ns - s->uploaded_ns >= 10 * SECOND) {
        s->uploaded_ns = s->usage.now_ns;
        use(s, s->upload_ns, 0);
    }
    if (pyprof_governor_is_due(&s->governor, s->usage.now_ns)) {
        s->reviews++;
        s->changes += pyprof_governor_review(&s->governor, &s->usage);
    }
}

/* Ticks for that long; the share of it that was used. */
static double run(simulation *s, int64_t ns) {
    const pyprof_usage before = s->usage;
    while (s->usage.now_ns < before.now_ns + ns) {
        tick(s);
    }
    return (double)(s->usage.own_ns - before.own_ns) / (double)(s->usage.now_ns - before.now_ns);
}

static void check_cheap_ticks_keep_their_rate(void) {
    simulation s = begin(10 * MS, 0.01, 40000);
    s.upload_ns = 40 * MS; /* with 0.4 % for ticks: 0.8 % */
    run(&s, 600 * SECOND);
    CHECK(s.governor.period_ns == 10 * MS && s.changes == 0);
    CHECK(s.reviews > 3000 && s.reviews <= 6000);
}

static void check_share_is_kept(void) {
    static const int64_t periods[] = {100000, MS, 10 * MS, 50 * MS};
    static const double shares[] = {0.002, 0.01, 0.1};
    for (size_t i = 0; i < sizeof periods / sizeof *periods; i++) {
        for (size_t j = 0; j < sizeof shares / sizeof *shares; j++) {
            const int64_t cost =
                (int64_t)(5 * shares[j] * (double)periods[i]) + 20000; /* five times too much */
            simulation s = begin(periods[i], shares[j], cost);
            const double share = run(&s, 30 * SECOND);
            CHECK(share < 1.1 * shares[j] && share > 0.7 * shares[j]);
            const unsigned changes = s.changes;
            const double later = run(&s, 300 * SECOND);
            CHECK(later < 1.03 * shares[j] && later > 0.85 * shares[j]);
            CHECK(changes >= 1 && s.changes - changes < 200);
        }
    }
}

/* Ticks that would use all of a core, until the governor knows. */
static void check_very_dear_ticks(void) {
    simulation s = begin(100000, 0.01, MS);
    CHECK(run(&s, 30 * SECOND) < 0.011);
    /* More than a tick a second is never saved. */
    s = begin(100000, 0.0001, 2 * MS);
    run(&s, 60 * SECOND);
    CHECK(s.governor.period_ns == SECOND);
    s = begin(2 * SECOND, 0.0001, 50 * MS); /* and no rate is raised that is lower to begin with */
    run(&s, 60 * SECOND);
    CHECK(s.governor.period_ns == 2 * SECOND);
}

static void check_load_comes_and_goes(void) {
    simulation s = begin(10 * MS, 0.01, 20000);
    run(&s, 60 * SECOND);
    CHECK(s.changes == 0);
    for (int i = 0; i < 5; i++) {
        s.tick_ns = 2 * MS;
        CHECK(run(&s, 30 * SECOND) < 0.011);
        CHECK(s.governor.period_ns > 150 * MS && s.governor.period_ns < 350 * MS);
        s.tick_ns = 20000;
        run(&s, 20 * SECOND);
        CHECK(s.governor.period_ns == 10 * MS);
    }
    CHECK(s.changes < 400);
    s.tick_ns = 20 * MS; /* some that only one tick a second can do justice to */
    run(&s, 20 * SECOND);
    CHECK(s.governor.period_ns == SECOND);
    s.tick_ns = 20000;
    run(&s, 30 * SECOND);
    CHECK(s.governor.period_ns == 10 * MS);
}

static void check_uploads_are_part_of_it(void) {
    simulation s = begin(10 * MS, 0.01, 500000);
    s.upload_ns = 40 * MS; /* 0.4 % */
    run(&s, 30 * SECOND);
    const double share = run(&s, 300 * SECOND);
    CHECK(share < 0.0105 && share > 0.008);
    /* More than everything: ticks have a quarter of the share at least. */
    s = begin(10 * MS, 0.01, 500000);
    s.upload_ns = 500 * MS;
    for (int i = 0; i < 600; i++) {
        run(&s, SECOND / 10);
        CHECK(s.governor.period_ns < 250 * MS);
    }
    CHECK(s.governor.period_ns > 80 * MS);
    /* The rest is forgiven when that is over. */
    s.upload_ns = 0;
    run(&s, 60 * SECOND);
    CHECK(s.governor.period_ns < 62 * MS);
}

/* A single burst, such as the first look at ten thousand functions, is made up for and over. */
static void check_dear_first_tick(void) {
    simulation s = begin(10 * MS, 0.01, 20000);
    use(&s, 50 * MS, 50 * MS);
    run(&s, 10 * SECOND);
    CHECK(s.changes > 0);
    run(&s, 20 * SECOND);
    CHECK(s.governor.period_ns == 10 * MS);
}

static void check_pauses_and_odd_clocks(void) {
    simulation s = begin(10 * MS, 0.01, 500000);
    run(&s, 30 * SECOND);
    const int64_t period = s.governor.period_ns;
    /* A new thread's clock begins at 0; what its predecessor used is no use of its own. */
    s.usage.now_ns += 3600 * SECOND;
    s.usage.sampling_ns = 0;
    pyprof_governor_begin(&s.governor, &s.usage);
    CHECK(s.governor.period_ns == period);
    const double share = run(&s, 30 * SECOND);
    CHECK(share > 0.009 && share < 0.011);
    /* A machine that was suspended; clocks that stand still. */
    s.usage.now_ns += 3600 * SECOND;
    run(&s, 30 * SECOND);
    CHECK(s.governor.period_ns > 35 * MS && s.governor.period_ns < 80 * MS);
    for (int i = 0; i < 100; i++) {
        s.usage.now_ns += SECOND;
        s.usage.ticks++;
        pyprof_governor_review(&s.governor, &s.usage);
        CHECK(s.governor.period_ns >= 10 * MS && s.governor.period_ns <= SECOND);
        pyprof_governor_review(&s.governor, &s.usage); /* no time, no tick */
    }
}

static void check_no_limit(void) {
    simulation s = begin(10 * MS, 1, 500 * MS);
    run(&s, 600 * SECOND);
    CHECK(s.reviews == 0 && s.governor.period_ns == 10 * MS);
}

int main(void) {
    check_cheap_ticks_keep_their_rate();
    check_share_is_kept();
    check_very_dear_ticks();
    check_load_comes_and_goes();
    check_uploads_are_part_of_it();
    check_dear_first_tick();
    check_pauses_and_odd_clocks();
    check_no_limit();
    return 0;
}
