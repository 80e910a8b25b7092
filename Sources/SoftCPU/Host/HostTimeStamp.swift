// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU

/// The time-stamp counter of the host's processor.
public enum HostTimeStamp {
  /// The counter now.
  public static var now: UInt64 { bh_rdtsc() }
}
