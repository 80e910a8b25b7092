// SPDX-License-Identifier: Apache-2.0

import BlockImage
import DeviceHost
import DeviceProtocol
import IDE
import ImageFiles
import LinuxSystem

/// Discs that the operator takes out and puts in.
extension IDEEndpoint {
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
