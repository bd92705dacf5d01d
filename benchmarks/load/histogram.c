// Latencies in bins of constant relative width: 64 to each power of two, so a percentile is right within 1.6 %.
#include "storm.h"

static unsigned bin_of(uint64_t value) {
  if (value < 64) return (unsigned)value;
  unsigned exponent = 63u - (unsigned)__builtin_clzll(value);
  return (exponent - 5) * 64 + ((value >> (exponent - 6)) & 63);
}

static uint64_t middle_of(unsigned bin) {
  if (bin < 64) return bin;
  unsigned exponent = bin / 64 + 5;
  uint64_t width = 1ull << (exponent - 6);
  return (1ull << exponent) + (bin % 64) * width + width / 2;
}

void histogram_add(Histogram *histogram, uint64_t value) {
  histogram->bins[bin_of(value)]++;
  histogram->count++;
  if (value > histogram->highest) histogram->highest = value;
}

uint64_t histogram_at(const Histogram *histogram, double share) {
  uint64_t wanted = (uint64_t)(share * (double)histogram->count), passed = 0;
  for (unsigned bin = 0; bin < 64 * 64; bin++) {
    passed += histogram->bins[bin];
    if (passed > wanted) return middle_of(bin) < histogram->highest ? middle_of(bin) : histogram->highest;
  }
  return histogram->highest;
}
