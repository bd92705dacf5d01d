// The outcome as one JSON object on standard output. Times are in the unit that their names end with.
#include <stdio.h>
#include <stdlib.h>

#include "storm.h"

static void number(const char *name, double value) { printf(",\"%s\":%.6g", name, value); }
static void whole(const char *name, uint64_t value) { printf(",\"%s\":%llu", name, (unsigned long long)value); }
static double over(double value, double by) { return by > 0 ? value / by : 0; }
static double seconds(uint64_t from, uint64_t to) { return to > from ? (double)(to - from) / 1e9 : 0; }

static void percentiles(const char *what, const Histogram *histogram) {
  static const struct {
    const char *name;
    double share;
  } points[] = {{"p50", .5}, {"p90", .9}, {"p95", .95}, {"p99", .99}, {"p999", .999}};
  for (size_t i = 0; i < sizeof points / sizeof *points; i++)
    printf(",\"%s_%s_ms\":%.6g", what, points[i].name, (double)histogram_at(histogram, points[i].share) / 1e6);
  printf(",\"%s_max_ms\":%.6g", what, (double)histogram->highest / 1e6);
}

static void print_opening(const Storm *storm) {
  double cpu = storm->after_open.cpu_seconds - storm->before.cpu_seconds;
  printf("{\"readers\":%ld", storm->options.readers);
  whole("opened", (uint64_t)storm->opened);
  whole("refused", (uint64_t)(storm->refused + storm->options.readers - storm->started + storm->unanswered));
  whole("ended", (uint64_t)storm->ended);
  whole("stalled", (uint64_t)storm->options.stalled);
  whole("stalled_ended", (uint64_t)storm->stalled_ended);
  whole("listen_drops", (uint64_t)storm->listen_drops);
  number("open_seconds", seconds(storm->before.at_ns, storm->after_open.at_ns));
  number("open_cpu_us", over(cpu * 1e6, (double)storm->opened));
  percentiles("open", &storm->opening);
}

static void print_idle(const Storm *storm) {
  long grown = storm->after_settle.memory_kb - storm->before.memory_kb;
  double held = seconds(storm->after_settle.at_ns, storm->after_hold.at_ns);
  whole("memory_before_kb", (uint64_t)storm->before.memory_kb);
  whole("memory_idle_kb", (uint64_t)storm->after_settle.memory_kb);
  whole("memory_end_kb", (uint64_t)storm->at_end.memory_kb);
  number("memory_per_reader_kb", over((double)grown, (double)storm->opened));
  number("hold_seconds", held);
  number("idle_cpu_percent", over(100 * (storm->after_hold.cpu_seconds - storm->after_settle.cpu_seconds), held));
}

static void print_deliveries(const Storm *storm) {
  const Account *account = &storm->account;
  uint64_t expected = expected_in_all(storm), accepted = atomic_load(&storm->publishing.accepted);
  whole("planned", (uint64_t)storm->options.count);
  whole("accepted", accepted);
  whole("refused_events", atomic_load(&storm->publishing.refused));
  whole("unsent", (uint64_t)storm->options.count - accepted - atomic_load(&storm->publishing.refused));
  whole("expected", expected);
  whole("delivered", account->unique);
  whole("missed", expected > account->unique ? expected - account->unique : 0);
  whole("repeated", account->repeated);
  whole("disordered", account->disordered);
  whole("misrouted", account->misrouted);
  whole("foreign", account->foreign);
  whole("bytes", account->bytes);
}

static void print_costs(const Storm *storm) {
  const Publishing *publishing = &storm->publishing;
  double cpu = storm->at_end.cpu_seconds - storm->at_publish.cpu_seconds,
         wall = seconds(storm->at_publish.at_ns, storm->at_end.at_ns);
  double publishing_seconds = seconds(publishing->start_ns, publishing->end_ns);
  double delivering =
      seconds(publishing->start_ns ? publishing->start_ns : storm->account.first_ns, storm->account.last_ns);
  number("publish_seconds", publishing_seconds);
  number("accepted_per_second", over((double)atomic_load(&publishing->accepted), publishing_seconds));
  number("deliver_seconds", delivering);
  number("delivered_per_second", over((double)storm->account.unique, delivering));
  number("cpu_seconds", cpu);
  number("cpu_percent", over(100 * cpu, wall));
  number("load_cpu_percent", over(100 * (storm->at_end.own_cpu_seconds - storm->at_publish.own_cpu_seconds), wall));
  number("cpu_us_per_delivery", over(cpu * 1e6, (double)storm->account.unique));
  number("cpu_us_per_event", over(cpu * 1e6, (double)atomic_load(&publishing->accepted)));
}

// From an event's due time until its last reader has it.
static void print_fanout(const Storm *storm) {
  Histogram *fanout = calloc(1, sizeof *fanout);
  for (long s = storm->options.replay; s < storm->total_events; s++)
    if (storm->account.last_by_event[s] > storm->account.due_ns[s])
      histogram_add(fanout, storm->account.last_by_event[s] - storm->account.due_ns[s]);
  percentiles("fanout", fanout);
  free(fanout);
}

void print_report(Storm *storm) {
  print_opening(storm);
  print_idle(storm);
  print_deliveries(storm);
  print_costs(storm);
  percentiles("latency", &storm->account.latency);
  percentiles("answer", &storm->publishing.answers);
  print_fanout(storm);
  whole("replayed", (uint64_t)storm->options.replay);
  whole("caught_up", (uint64_t)storm->caught_up);
  number("caught_up_seconds", seconds(storm->return_ns, storm->caught_up_ns));
  printf("}\n");
}
