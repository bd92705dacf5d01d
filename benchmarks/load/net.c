// Addresses and sockets: TCP or Unix, spread over source addresses 127.0.0.1, .2, … when one address's ports would run
// out.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "storm.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static void refuse(const char *text) {
  fprintf(stderr, "storm: not an address: %s (want HOST:PORT with a numeric host, or unix:PATH)\n", text);
  exit(2);
}

Address parse_address(const char *text) {
  Address address = {0};
  if (!strncmp(text, "unix:", 5)) {
    struct sockaddr_un *un = (void *)&address.at;
    if (strlen(text + 5) >= sizeof un->sun_path) refuse(text);
    un->sun_family = AF_UNIX;
    strcpy(un->sun_path, text + 5);
    address.length = sizeof *un;
    return address;
  }
  char host[64] = "";
  int port = 0;
  struct sockaddr_in *in = (void *)&address.at;
  if (sscanf(text, "%63[0-9.]:%d", host, &port) != 2 || inet_pton(AF_INET, host, &in->sin_addr) != 1) refuse(text);
  in->sin_family = AF_INET;
  in->sin_port = htons((uint16_t)port);
  address.length = sizeof *in;
  return address;
}

static bool bind_source(int fd, long source) {
  int on = 1;
  struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)source)};
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  return bind(fd, (void *)&from, sizeof from) == 0;
}

// A socket that is connected or connecting; -1 with errno set when that failed at once.
int open_socket(const Address *to, long source, bool blocking, int receive_bytes) {
  int on = 1, family = to->at.ss_family;
  int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0);
  if (fd < 0) return -1;
  if (receive_bytes) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
  if (family == AF_INET) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  bool bound = family != AF_INET || source == 0 || bind_source(fd, source);
  if (bound && (!connect(fd, (const void *)&to->at, to->length) || errno == EINPROGRESS)) return fd;
  int why = errno;
  close(fd);
  errno = why;
  return -1;
}

// Copies `pattern` and puts numbers in for {n}, {f} and {g}.
void expand(char *out, size_t room, const char *pattern, long n, long f, long g) {
  char *end = out + room - 24;
  while (*pattern && out < end) {
    bool number = pattern[0] == '{' && pattern[1] && strchr("nfg", pattern[1]) && pattern[2] == '}';
    if (!number) {
      *out++ = *pattern++;
      continue;
    }
    out += sprintf(out, "%ld", pattern[1] == 'n' ? n : pattern[1] == 'f' ? f : g);
    pattern += 3;
  }
  *out = 0;
}

// Connections that this machine's listeners turned away so far: a lost SYN would spoil the cost of an opening unseen.
long listen_drops(void) {
  char names[8192], values[8192];
  long drops = 0;
  FILE *file = fopen("/proc/net/netstat", "r");
  if (!file) return 0;
  while (fgets(names, sizeof names, file) && fgets(values, sizeof values, file)) {
    char *name_rest = names, *value_rest = values, *name, *value;
    while ((name = strsep(&name_rest, " \n")) && (value = strsep(&value_rest, " \n")))
      if (!strcmp(name, "ListenDrops")) drops = atol(value);
  }
  fclose(file);
  return drops;
}
