// SPDX-License-Identifier: Apache-2.0

internal import Glibc

extension Signals {
  /// Lets the calling thread receive a signal that it, or who started it, had blocked.
  public static func unblock(_ signal: Int32) {
    var set = sigset_t()
    // SAFETY: the calls fill and read the one set that they are given.
    unsafe sigemptyset(&set)
    unsafe sigaddset(&set, signal)
    unsafe pthread_sigmask(SIG_UNBLOCK, &set, nil)
  }
}
