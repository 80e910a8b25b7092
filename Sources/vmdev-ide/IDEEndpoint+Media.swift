// SPDX-License-Identifier: Apache-2.0

import BlockImage
import DeviceHost
import DeviceProtocol
import IDE
import ImageFiles
import LinuxSystem

/// Discs that the operator takes out and puts in, and disks that get another size.
extension IDEEndpoint {
  /// How long a request that is under way is waited for, in nanoseconds.
  private static let resizePatience: UInt64 = 1_000_000_000

  /// Gives a disk another size, in its image and for the guest.
  ///
  /// The size is kept in the image alone: a process that takes over in the middle finds the old one
  /// or the new one there.
  mutating func resize(_ request: ResizeRequest, services: HostServices) throws(Refusal) {
    let slot = Int(request.slot & 3)
    let name = "ide\(slot / 2).\(slot % 2)"
    guard let drive = drives[slot], controller.isDisk(channel: slot / 2, drive: slot % 2) else {
      throw Refusal("\(name) is no disk")
    }
    settle(by: HostClock.monotonic() + Self.resizePatience, services)
    guard sides[slot / 2].running == nil else { throw Refusal("\(name) is busy") }
    try drive.resize(to: request.byteCount)
    controller.resizeDisk(
      channel: slot / 2, drive: slot % 2, sectorCount: drive.virtualSize / 512)
  }

  mutating func changeMedium(
    _ request: MediumRequest, services: HostServices
  ) throws(Refusal) {
    let slot = Int(request.slot & 3)
    let name = "ide\(slot / 2).\(slot % 2)"
    var image: Drive?
    if request.action == .insert {
      guard let file = services.attached else { throw Refusal("no image came along") }
      guard request.byteCount >= 2048 else {
        throw Refusal("the image is shorter than a sector of 2048 bytes")
      }
      // The file was opened for reading only, and its length is the operator's word: no call
      // is needed that this process may not do any more.
      let storage = ImageFile(file, byteCount: request.byteCount)
      image = Drive(name: name, image: .raw(RawImage(storage: storage, writable: false)))
    }
    let refusal = controller.changeDisc(
      channel: slot / 2, drive: slot % 2,
      sectorCount: image.map { $0.virtualSize / 2048 }, force: request.isForced)
    switch refusal {
    case nil:
      drives[slot] = image
      // What was shut opens before the disc goes in.
      if request.action == .insert, trays[slot] == false {
        trays[slot] = true
        services.notify(NoticeMessage(.trayMoved, slot: UInt8(slot), isOpen: true))
      }
    case .noDrive: throw Refusal("\(name) is no CD-ROM drive")
    case .busy: throw Refusal("\(name) is busy")
    case .locked:
      throw Refusal(
        "the guest has locked the tray of \(name), and was asked to open it; --force opens it at "
          + "once")
    }
  }
}
