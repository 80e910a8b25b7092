// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceProtocol
import LinuxSystem
import Monitor

/// A CD-ROM drive of a machine.
struct DriveName: ParsableArguments {
  static let slots = ["ide0.0", "ide0.1", "ide1.0", "ide1.1"]

  @OptionGroup var machine: MachineName
  @Argument(help: "The drive's slot, as in the machine file: ide0.0, ide0.1, ide1.0 or ide1.1.")
  var slot: String
  @Flag(help: "Open the tray although the guest has locked it.")
  var force = false

  func validate() throws {
    guard Self.slots.contains(slot) else {
      throw ValidationError(
        "there is no slot \"\(VisibleText.escape(slot))\"; accepted: "
          + Self.slots.joined(separator: ", "))
    }
  }

  /// Asks for a change; a drive that is busy is asked again for some seconds.
  func ask(
    _ action: MediumRequest.Action, byteCount: UInt64 = 0, _ image: [Descriptor] = []
  ) throws(ControlClient.Failure) {
    let client = try machine.connect()
    let place = UInt8(Self.slots.firstIndex(of: slot) ?? 0)
    let request = MediumRequest(slot: place, action, isForced: force, byteCount: byteCount)
    let end = HostClock.monotonic() + 5_000_000_000
    while true {
      do throws(ControlClient.Failure) {
        let _: Empty = try client.ask(.medium, request, image)
        return
      } catch {
        guard "\(error)".hasSuffix("is busy"), HostClock.monotonic() < end else { throw error }
        HostClock.sleep(50_000_000)
      }
    }
  }
}

struct Eject: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Take the disc out of a CD-ROM drive.",
    discussion: """
      While the guest has the tray locked it is asked to let go, and the command fails; with \
      --force the disc is taken out at once.
      """)
  @OptionGroup var drive: DriveName

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in try drive.ask(.eject) }
  }
}

struct Change: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Put another disc into a CD-ROM drive.",
    discussion: """
      FILE is an ISO image, or a block device; it is opened for reading with the caller's rights \
      and locked as QEMU does it.
      """)
  @OptionGroup var drive: DriveName
  @Argument(help: "The image.")
  var file: String

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      let title = VisibleText.escape(file)
      let image: Descriptor
      let byteCount: UInt64
      do throws(SystemError) {
        image = try Files.open(file, [.readOnly, .noWait])
        byteCount = image.isRegularFile || image.isBlockDevice ? try image.end() : 0
      } catch {
        throw ControlClient.Failure("\"\(title)\" cannot be opened: \(error)")
      }
      guard byteCount >= 2048 else {
        throw ControlClient.Failure(
          "\"\(title)\" is no file or block device with at least one sector of 2048 bytes")
      }
      do throws(ImageLock.Failure) {
        try ImageLock.take(image, isReadOnly: true)
      } catch {
        throw ControlClient.Failure(
          error == .inUse
            ? "\"\(title)\" is open for writing in another process"
            : "\"\(title)\" cannot be locked")
      }
      try drive.ask(.insert, byteCount: byteCount, [image])
    }
  }
}
