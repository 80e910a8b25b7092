// SPDX-License-Identifier: Apache-2.0

import DeviceHost
import DeviceProtocol
import IDE
import LinuxSystem

/// What a drive has done, and how long it took in nanoseconds.
struct DriveCounts: Sendable {
  var readBytes: UInt64 = 0
  var writtenBytes: UInt64 = 0
  var reads: UInt64 = 0
  var writes: UInt64 = 0
  var flushes: UInt64 = 0
  var readTime: UInt64 = 0
  var writeTime: UInt64 = 0
  var flushTime: UInt64 = 0
}

/// What the operator is told of the drives.
extension IDEEndpoint {
  /// Counts a request that the workers have done.
  mutating func count(_ completion: Completions.Completion) {
    guard completion.outcome.result == .ok else { return }
    let request = completion.request
    let channel = request.channel & 1
    let slot = channel << 1 | request.drive & 1
    let time = HostClock.monotonic() &- sides[channel].started
    switch request.kind {
    case .read(_, let count):
      counts[slot].reads &+= 1
      counts[slot].readBytes &+= UInt64(count) * UInt64(request.sectorSize)
      counts[slot].readTime &+= time
    case .write(_, let count, _):
      counts[slot].writes &+= 1
      counts[slot].writtenBytes &+= UInt64(count) * UInt64(request.sectorSize)
      counts[slot].writeTime &+= time
    case .flush:
      counts[slot].flushes &+= 1
      counts[slot].flushTime &+= time
    case .verify, .trim, .copyBuffer: break
    }
  }

  mutating func drives(_ services: HostServices) throws(Refusal) -> DrivesReply {
    var reply = DrivesReply(drives: [])
    for slot in 0..<4 {
      let disc = controller.disc(channel: slot / 2, drive: slot % 2)
      guard disc != nil || drives[slot] != nil else { continue }
      var drive = DrivesReply.Drive(
        slot: UInt8(slot), hasMedium: disc?.hasMedium ?? true,
        isTrayOpen: disc?.isTrayOpen ?? false, isLocked: disc?.isLocked ?? false,
        byteCount: drives[slot]?.virtualSize ?? 0)
      let counts = counts[slot]
      drive.readBytes = counts.readBytes
      drive.writtenBytes = counts.writtenBytes
      drive.reads = counts.reads
      drive.writes = counts.writes
      drive.flushes = counts.flushes
      drive.readTime = counts.readTime
      drive.writeTime = counts.writeTime
      drive.flushTime = counts.flushTime
      reply.drives.append(drive)
    }
    return reply
  }

  /// Tells of trays that have moved since the last look.
  mutating func watchTrays(_ services: HostServices) {
    for slot in 0..<4 {
      let isOpen = controller.disc(channel: slot / 2, drive: slot % 2)?.isTrayOpen
      guard isOpen != trays[slot] else { continue }
      let isFirst = trays[slot] == nil
      trays[slot] = isOpen
      guard !isFirst, let isOpen else { continue }
      services.notify(NoticeMessage(.trayMoved, slot: UInt8(slot), isOpen: isOpen))
    }
  }
}
