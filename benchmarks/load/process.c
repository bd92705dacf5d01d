// CPU time and memory of the processes under measurement, from /proc: time on the CPU in nanoseconds (schedstat, summed
// over the threads; /proc/PID/stat counts in ticks of 10 ms, too coarse for a cost per connection), and the resident
// set.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "storm.h"

static uint64_t thread_cpu_ns(int pid, const char *thread) {
  char path[96];
  unsigned long long ns = 0;
  snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, thread);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  if (fscanf(file, "%llu", &ns) != 1) ns = 0;
  fclose(file);
  return ns;
}

static double process_cpu_seconds(int pid) {
  char path[64];
  uint64_t ns = 0;
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *threads = opendir(path);
  if (!threads) return 0;
  for (struct dirent *entry; (entry = readdir(threads));)
    if (entry->d_name[0] != '.') ns += thread_cpu_ns(pid, entry->d_name);
  closedir(threads);
  return (double)ns / 1e9;
}

static long process_memory_kb(int pid) {
  char path[64], line[256];
  long kb = 0;
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "VmRSS: %ld", &kb) == 1) break;
  fclose(file);
  return kb;
}

static double own_cpu_seconds(void) {
  struct rusage use;
  getrusage(RUSAGE_SELF, &use);
  return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
         (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

Snapshot take_snapshot(const char *pids) {
  Snapshot snapshot = {.own_cpu_seconds = own_cpu_seconds(), .at_ns = now_ns()};
  char *list = strdup(pids), *rest = list;
  for (char *word; (word = strsep(&rest, ","));) {
    int pid = atoi(word);
    if (pid <= 0) continue;
    snapshot.cpu_seconds += process_cpu_seconds(pid);
    snapshot.memory_kb += process_memory_kb(pid);
  }
  free(list);
  return snapshot;
}
