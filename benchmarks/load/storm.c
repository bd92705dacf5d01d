// The run, phase by phase: history, opening, settling, holding, publishing; then the report.
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "storm.h"

static uint64_t after(double seconds) { return now_ns() + (uint64_t)(seconds * 1e9); }

static void give_up(int signal) {
  (void)signal;
  static const char message[] = "storm: the watchdog ended a run that did not end by itself\n";
  (void)!write(2, message, sizeof message - 1);
  _exit(3);
}

static void raise_file_limit(const Options *o) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if ((rlim_t)(o->readers + o->publishers + 16) <= limit.rlim_cur) return;
  fprintf(stderr, "storm: %ld readers need more than the %lu files allowed\n", o->readers,
          (unsigned long)limit.rlim_cur);
  exit(2);
}

static void set_up(Storm *storm) {
  const Options *o = &storm->options;
  signal(SIGPIPE, SIG_IGN);
  signal(SIGALRM, give_up);
  alarm((unsigned)longest_run_seconds(o) + 1);
  raise_file_limit(o);
  storm->to = parse_address(o->to);
  storm->publish_to = parse_address(o->publish_to);
  storm->total_events = o->count + o->replay;
  storm->publishing.accepted_by_group = calloc((size_t)o->groups, sizeof(atomic_ulong));
  storm->publishing.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  account_begin(storm);
  readers_begin(storm);
}

static void open_readers(Storm *storm, long upto) {
  uint64_t deadline = after(storm->options.open_seconds);
  while ((storm->started < upto || storm->unanswered) && now_ns() < deadline) {
    open_more(storm, upto);
    poll_readers(storm, 50);
  }
}

static void idle(Storm *storm, double seconds) {
  for (uint64_t end = after(seconds), now; (now = now_ns()) < end;)
    poll_readers(storm, (int)((end - now) / 1000000) + 1);
}

static void wait_at_gate(Storm *storm) {
  struct pollfd input = {.fd = 0, .events = POLLIN};
  printf("open\n");
  fflush(stdout);
  for (uint64_t end = after(120); now_ns() < end && poll(&input, 1, 0) == 0;) poll_readers(storm, 20);
}

// Another process publishes: what it will publish is known, so what must arrive here is too.
static void expect_all(Storm *storm) {
  const Options *o = &storm->options;
  for (long s = o->replay; s < storm->total_events; s++)
    atomic_fetch_add(&storm->publishing.accepted_by_group[s % o->groups], 1);
  atomic_store(&storm->publishing.accepted, (unsigned long)o->count);
  atomic_store(&storm->publishing.publishing_over, true);
}

static uint64_t delivery_deadline(const Options *o) {
  double scheduled = o->rate > 0 && !o->one_at_a_time ? (double)o->count / o->rate : 0;
  return after(scheduled + (o->silent ? 0 : o->publish_seconds) + o->linger_seconds);
}

static void admit_returning(Storm *storm, uint64_t at) {
  if (storm->started >= storm->options.readers || now_ns() < at) return;
  if (!storm->return_ns) storm->return_ns = now_ns();
  open_more(storm, storm->options.readers);
}

// Ends when all is delivered, or when nothing more can be hoped for: linger_seconds after the last publish.
static void deliver(Storm *storm) {
  const Options *o = &storm->options;
  uint64_t deadline = delivery_deadline(o), returning = after(o->return_seconds);
  bool over = false;
  while (!all_delivered(storm) && now_ns() < deadline) {
    admit_returning(storm, returning);
    poll_readers(storm, 10);
    if (!over && atomic_load(&storm->publishing.publishing_over)) {
      over = true;
      if (!o->silent && after(o->linger_seconds) < deadline) deadline = after(o->linger_seconds);
    }
  }
}

static void publish(Storm *storm) {
  pthread_t publisher;
  if (storm->options.silent || !storm->options.count) expect_all(storm);
  else pthread_create(&publisher, NULL, publish_live, storm);
  deliver(storm);
  storm->at_end = take_snapshot(storm->options.pids);
  if (storm->options.silent || !storm->options.count) return;
  atomic_store(&storm->publishing.stop, true);
  pthread_join(publisher, NULL);
}

int main(int argc, char **argv) {
  Storm *storm = calloc(1, sizeof *storm);
  const Options *o = &storm->options;
  read_options(&storm->options, argc, argv);
  set_up(storm);
  if (o->replay) publish_history(storm);
  long drops = listen_drops();
  storm->before = take_snapshot(o->pids);
  open_readers(storm, o->witnesses);
  storm->after_open = take_snapshot(o->pids);
  idle(storm, o->settle_seconds);
  storm->after_settle = take_snapshot(o->pids);
  if (o->hold_seconds > 0) idle(storm, o->hold_seconds);
  storm->after_hold = take_snapshot(o->pids);
  if (o->gate) wait_at_gate(storm);
  storm->at_publish = take_snapshot(o->pids);
  publish(storm);
  storm->listen_drops = listen_drops() - drops;
  print_report(storm);
  return 0;
}
