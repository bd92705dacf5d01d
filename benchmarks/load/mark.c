// A mark is what an event's data carries: *TTTTTTTTTTTTTTTT.SSSSSSSS*, the due time in nanoseconds and the sequence
// number, both hexadecimal. It survives form encoding and JSON as it is, and a '*' occurs nowhere else in a stream of
// these events.
#include "storm.h"

static void write_hex(char *out, uint64_t value, int digits) {
  for (int i = digits - 1; i >= 0; i--, value >>= 4) out[i] = "0123456789abcdef"[value & 15];
}

// A table instead of comparisons: this runs for every delivery, millions of times a second.
static const int8_t value_of[256] = {['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,
                                     ['6'] = 7,  ['7'] = 8,  ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12,
                                     ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16};

// The value, or -1 when a character is no digit.
static int64_t read_hex(const char *text, int digits) {
  uint64_t value = 0;
  int wrong = 0;
  for (int i = 0; i < digits; i++) {
    int one_more = value_of[(uint8_t)text[i]];
    wrong |= one_more == 0;
    value = value << 4 | (uint64_t)((one_more - 1) & 15);
  }
  return wrong ? -1 : (int64_t)value;
}

void write_mark(char *out, uint64_t due_ns, uint32_t sequence) {
  out[0] = out[26] = '*';
  out[17] = '.';
  write_hex(out + 1, due_ns, 16);
  write_hex(out + 18, sequence, 8);
}

bool read_mark(const char *mark, uint32_t *sequence) {
  if (mark[0] != '*' || mark[17] != '.' || mark[26] != '*') return false;
  int64_t value = read_hex(mark + 18, 8);
  *sequence = (uint32_t)value;
  return value >= 0;
}

uint64_t mark_due_ns(const char *mark) {
  int64_t value = read_hex(mark + 1, 16);
  return value < 0 ? 0 : (uint64_t)value;
}
