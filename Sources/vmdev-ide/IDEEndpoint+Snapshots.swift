// SPDX-License-Identifier: Apache-2.0

import BlockImage
import DeviceHost
import DeviceProtocol
import IDE
import ImageFiles
import LinuxSystem

/// Snapshots of the drives' images, and overlays; the machine stands while they are made.
extension IDEEndpoint {
  mutating func snapshot(
    _ request: DriveSnapshotRequest, services: HostServices
  ) throws(Refusal) -> DriveSnapshotReply {
    switch request.action {
    case .list:
      // The images are free of transfers then, and nobody waits for a host that is slow.
      settle(by: HostClock.monotonic() + 1_000_000_000, services)
      guard !sides.contains(where: { $0.running != nil }) else { throw Refusal("a drive is busy") }
      return try list()
    case .create:
      try create(request, services)
    case .check:
      try standStill(services)
      for (_, drive) in try writableDisks() { _ = try drive.snapshot(of: request) }
    case .apply:
      for (_, drive) in try writableDisks() { _ = try drive.snapshot(of: request) }
      try standStill(services)
      for (_, drive) in try writableDisks() {
        try drive.change { (image) throws(BlockImageError) in
          try image.applySnapshot(.name(request.tag))
        }
      }
    case .delete: return try delete(request, services)
    case .overlay:
      try standStill(services)
      try makeOverlay(request, services)
    }
    return DriveSnapshotReply()
  }

  /// The disks that a snapshot of the machine has to hold.
  private func writableDisks() throws(Refusal) -> [(slot: Int, drive: Drive)] {
    var disks: [(slot: Int, drive: Drive)] = []
    for (slot, drive) in drives.enumerated() {
      guard let drive, drive.isWritable else { continue }
      guard drive.isQCOW2 else {
        throw Refusal(
          "Device 'ide\(slot / 2)-hd\(slot % 2)' is writable but does not support snapshots: its "
            + "image is raw; make it qcow2 with vmimage convert, or the drive readonly")
      }
      disks.append((slot, drive))
    }
    return disks
  }

  /// Waits until nothing is under way on the images.
  private mutating func standStill(_ services: HostServices) throws(Refusal) {
    pause(services)
    if let busy = sides.firstIndex(where: { $0.running != nil }) {
      throw Refusal("a request to a drive of ide\(busy) does not end")
    }
  }

  private mutating func create(
    _ request: DriveSnapshotRequest, _ services: HostServices
  ) throws(Refusal) {
    let disks = try writableDisks()
    for (_, drive) in disks {
      guard try !drive.snapshots().contains(where: { $0.name == request.tag }) else {
        throw Refusal("\(drive.name) has a snapshot '\(request.tag)' already")
      }
    }
    try standStill(services)
    for (_, drive) in disks {
      try drive.change { (image) throws(BlockImageError) in
        try image.createSnapshot(
          request.tag, seconds: request.seconds, nanoseconds: request.nanoseconds,
          guestNanoseconds: request.clock)
      }
    }
  }

  /// Deletes the snapshots of a name, and returns them.
  ///
  /// With a time given, only those of that time.
  private mutating func delete(
    _ request: DriveSnapshotRequest, _ services: HostServices
  ) throws(Refusal) -> DriveSnapshotReply {
    let found = try list().entries.filter { entry in
      entry.tag == request.tag && drives[Int(entry.slot)]?.isWritable ?? false
        && (request.seconds == 0
          || entry.seconds == request.seconds && entry.nanoseconds == request.nanoseconds)
    }
    guard !found.isEmpty else { return DriveSnapshotReply() }
    try standStill(services)
    for entry in found {
      try drives[Int(entry.slot)]?.change { (image) throws(BlockImageError) in
        let snapshot = try image.snapshots().first {
          $0.name == entry.tag && $0.seconds == entry.seconds
            && $0.nanoseconds == entry.nanoseconds
        }
        if let snapshot { try image.deleteSnapshot(.id(snapshot.id)) }
      }
    }
    return DriveSnapshotReply(entries: found)
  }

  private func list() throws(Refusal) -> DriveSnapshotReply {
    var entries: [DriveSnapshotReply.Entry] = []
    for (slot, drive) in drives.enumerated() {
      guard let drive, drive.isQCOW2 else { continue }
      for snapshot in try drive.snapshots() {
        entries.append(
          DriveSnapshotReply.Entry(
            slot: UInt8(slot), tag: snapshot.name, seconds: snapshot.seconds,
            nanoseconds: snapshot.nanoseconds, clock: snapshot.guestNanoseconds))
      }
    }
    return DriveSnapshotReply(entries: entries)
  }

  private func makeOverlay(
    _ request: DriveSnapshotRequest, _ services: HostServices
  ) throws(Refusal) {
    guard let file = services.attached else { throw Refusal("no file came along") }
    guard let drive = drives[Int(request.slot)], drive.isWritable else {
      throw Refusal("drive \(request.slot) has no image that is written")
    }
    guard drive.flush() == .ok else { throw Refusal("\(drive.name) cannot be flushed") }
    var creation = QCOW2Creation(virtualSize: drive.virtualSize)
    creation.backingFileName = request.backing
    creation.backingFormat = request.backingFormat
    do throws(BlockImageError) {
      _ = try QCOW2Writer(creation, storage: ImageFile(empty: file)).finish()
    } catch {
      throw Refusal("the overlay of \(drive.name): \(error)")
    }
  }
}

extension Drive {
  /// Changes the image's tables while nobody else uses it, and makes all of it durable.
  fileprivate func change(
    _ body: @Sendable (inout QCOW2Image<ImageFile, Inflater>) throws(BlockImageError) -> Void
  ) throws(Refusal) {
    guard flush() == .ok else { throw Refusal("\(name) cannot be flushed") }
    do throws(BlockImageError) { _ = try exclusively(body) } catch {
      throw Refusal("\(name): \(error)")
    }
    guard flush() == .ok else { throw Refusal("\(name) cannot be flushed") }
  }

  fileprivate func snapshots() throws(Refusal) -> [QCOW2Snapshot] {
    do throws(BlockImageError) {
      return try exclusively { (image) throws(BlockImageError) in try image.snapshots() } ?? []
    } catch {
      throw Refusal("\(name): \(error)")
    }
  }

  /// The snapshot that belongs to a saved state: of the same name and time, and as large.
  fileprivate func snapshot(of request: DriveSnapshotRequest) throws(Refusal) -> QCOW2Snapshot {
    guard let found = try snapshots().first(where: { $0.name == request.tag }) else {
      throw Refusal("\(name) has no snapshot '\(request.tag)'")
    }
    guard found.seconds == request.seconds, found.nanoseconds == request.nanoseconds else {
      throw Refusal(
        "the snapshot '\(request.tag)' of \(name) was not taken with the saved state of that name")
    }
    guard found.virtualSize == virtualSize else {
      throw Refusal(
        "the disk of \(name) has \(virtualSize) bytes, and had \(found.virtualSize) when the "
          + "snapshot '\(request.tag)' was taken")
    }
    return found
  }
}
