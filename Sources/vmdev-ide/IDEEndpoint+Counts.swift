// SPDX-License-Identifier: Apache-2.0

import DeviceHost
import DeviceProtocol
import IDE
import LinuxSystem

/// What the operator is told of the drives.
extension IDEEndpoint {
  /// Counts what was done, for the operator.
  func count(_ completion: Completions.Completion, _ services: HostServices) {
    let request = completion.request
    let channel = request.channel & 1
    func add(_ counter: DeviceCounter.Drive, _ value: UInt64 = 1) {
      services.count(
        value, in: DeviceCounter.place(counter, slot: channel << 1 | request.drive & 1))
    }
    guard completion.outcome.result == .ok else { return add(.errors) }
    let time = HostClock.monotonic() &- sides[channel].started
    switch request.kind {
    case .read(_, let count), .verify(_, let count):
      add(.reads)
      add(.readBytes, UInt64(count) * UInt64(request.sectorSize))
      add(.readTime, time)
    case .write(_, let count, _):
      add(.writes)
      add(.writtenBytes, UInt64(count) * UInt64(request.sectorSize))
      add(.writeTime, time)
    case .flush:
      add(.flushes)
      add(.flushTime, time)
    case .trim: add(.trims)
    case .copyBuffer: break
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
      func counted(_ counter: DeviceCounter.Drive) -> UInt64 {
        services.counted(DeviceCounter.place(counter, slot: slot))
      }
      drive.readBytes = counted(.readBytes)
      drive.writtenBytes = counted(.writtenBytes)
      drive.reads = counted(.reads)
      drive.writes = counted(.writes)
      drive.flushes = counted(.flushes)
      drive.readTime = counted(.readTime)
      drive.writeTime = counted(.writeTime)
      drive.flushTime = counted(.flushTime)
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
