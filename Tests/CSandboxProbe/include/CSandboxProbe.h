// SPDX-License-Identifier: Apache-2.0
//
// System calls as an intruder would make them: by number, past every check of a library.
#pragma once

// Each returns the call's result, or -errno.
long probe_call(long number, long a, long b, long c, long d, long e, long f);
long probe_path_call(long number, const char *path, long b, long c);
long probe_at_call(long number, const char *path, long c, long d);
int probe_32bit_call(int number);
long probe_connect(int port);
// Maps memory that is writable and executable at once, or makes written memory executable.
long probe_write_code(int allow_both);
long probe_mount(const char *target);

// A table of things that a process which was taken over would try.
enum { PROBE_SUCCEEDED = 255, PROBE_READ_ONLY = 9 };
unsigned probe_escape_count(void);
const char *probe_escape_name(unsigned index);
// Each ends the process: PROBE_SUCCEEDED, or the error number.
void probe_escape(unsigned index);
void probe_any(long number);  // a call by its number, every argument -1

int probe_fork(void);
int probe_wait(int pid);  // the exit code, or minus the signal
int probe_open_read_only(void);
void probe_become(const char *path, const char *name);  // with one descriptor too many
