// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

/// A process that takes more and more memory, and says how much it has, until it may not.
enum Hoard {
  static func run() {
    let output = Descriptor(owning: 3)
    guard (try? output.read(1)) != nil else { return }
    var memory: [[UInt8]] = []
    while memory.count < 64 {
      memory.append([UInt8](repeating: 1, count: 16 << 20))
      _ = try? output.write([UInt8(memory.count)])
    }
    HostClock.sleep(60_000_000_000)
  }
}
