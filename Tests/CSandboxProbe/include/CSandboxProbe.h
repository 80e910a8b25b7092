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
