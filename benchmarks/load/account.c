// What became of every event at every reader. Hot: millions of deliveries a second pass here, so a delivery costs a
// table look-up for its due time, one bit, and one number for the order.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storm.h"

void account_begin(Storm *storm) {
  size_t events = (size_t)storm->total_events + 1;
  storm->account.due_ns = calloc(events, sizeof(uint64_t));
  storm->account.last_by_event = calloc(events, sizeof(uint64_t));
  storm->opened_by_group = calloc((size_t)storm->options.groups, sizeof(long));
  storm->alive_by_group = calloc((size_t)storm->options.groups, sizeof(long));
}

// Events of one lane were published one after the other on one connection, so they must arrive in that order.
static long lane_of(const Options *o, uint32_t sequence) {
  long live = (long)sequence - o->replay;
  return live < 0 ? 0 : live / o->batch % o->publishers;
}

static bool first_time(Reader *reader, uint32_t sequence) {
  uint64_t bit = 1ull << (sequence & 63), *word = &reader->seen[sequence >> 6];
  bool fresh = !(*word & bit);
  *word |= bit;
  return fresh;
}

static void account_order(Storm *storm, Reader *reader, uint32_t sequence) {
  uint32_t *next = &reader->next[lane_of(&storm->options, sequence)];
  bool before_history =
      reader->returning && sequence >= storm->options.replay && reader->history < storm->options.replay;
  if (sequence < *next || before_history) storm->account.disordered++;
  if (sequence >= *next) *next = sequence + 1;
}

static void account_history(Storm *storm, Reader *reader, uint64_t now) {
  if (++reader->history < storm->options.replay) return;
  storm->caught_up++;
  storm->caught_up_ns = now;
}

static void account_latency(Account *account, const char *mark, uint32_t sequence, uint64_t now) {
  if (!account->due_ns[sequence]) account->due_ns[sequence] = mark_due_ns(mark);
  uint64_t due = account->due_ns[sequence];
  histogram_add(&account->latency, now > due ? now - due : 0);
  account->last_by_event[sequence] = now;
}

static void account_event(Storm *storm, Reader *reader, const char *mark, uint32_t sequence, uint64_t now) {
  Account *account = &storm->account;
  bool history = sequence < storm->options.replay;
  if (sequence >= storm->total_events) account->foreign++;
  else if (sequence % storm->options.groups != reader->group || (history && !reader->returning)) account->misrouted++;
  else if (!first_time(reader, sequence)) account->repeated++;
  else {
    account->unique++;
    storm->alive_unique++;
    reader->unique++;
    account_order(storm, reader, sequence);
    if (history) account_history(storm, reader, now);
    else account_latency(account, mark, sequence, now);
  }
}

// `bytes` begins with what reader->carry held; what is left of a cut mark goes there again.
void account_bytes(Storm *storm, Reader *reader, char *bytes, long length) {
  uint64_t now = now_ns(), before = storm->account.unique;
  char *at = bytes, *end = bytes + length;
  uint32_t sequence;
  while ((at = memchr(at, '*', (size_t)(end - at))) && end - at >= MARK_BYTES) {
    bool mark = read_mark(at, &sequence);
    if (mark) account_event(storm, reader, at, sequence, now);
    at += mark ? MARK_BYTES : 1;
  }
  reader->carried = at ? (uint8_t)(end - at) : 0;
  if (at) memcpy(reader->carry, at, reader->carried);
  if (storm->account.unique == before) return;
  storm->account.last_ns = now;
  if (!storm->account.first_ns) storm->account.first_ns = now;
}

static uint64_t expected_of(const Storm *storm, const long *readers_by_group, long returning) {
  uint64_t expected = (uint64_t)returning * (uint64_t)storm->options.replay;
  for (long g = 0; g < storm->options.groups; g++)
    expected += (uint64_t)readers_by_group[g] * atomic_load(&storm->publishing.accepted_by_group[g]);
  return expected;
}

uint64_t expected_in_all(const Storm *storm) {
  return expected_of(storm, storm->opened_by_group, storm->opened_returning);
}

// Readers that were lost do not hold up the end of a run; what they missed is in the account.
bool all_delivered(const Storm *storm) {
  if (!atomic_load(&storm->publishing.publishing_over) || storm->started < storm->options.readers || storm->unanswered)
    return false;
  return storm->alive_unique >= expected_of(storm, storm->alive_by_group, storm->alive_returning);
}

// Tells a publisher that goes one event at a time when all readers have the latest.
void note_everywhere(Storm *storm) {
  Publishing *publishing = &storm->publishing;
  uint64_t reached = storm->alive_by_group[0] ? storm->alive_unique / (uint64_t)storm->alive_by_group[0] : 0, one = 1;
  if (!storm->options.one_at_a_time || reached <= atomic_load(&publishing->everywhere)) return;
  atomic_store(&publishing->everywhere, reached);
  if (write(publishing->wake, &one, sizeof one) < 0) return;  // full: the publisher is awake anyway
}
