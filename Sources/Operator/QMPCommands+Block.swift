// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor

/// The drives: what they hold, what they have done, and their discs.
struct Drives {
  let machine: any MachineAccess

  /// A drive with what it holds now; the state is unknown while its device is not up.
  struct Entry {
    var drive: MonitorSettings.Drive
    var state: DrivesReply.Drive?
    /// The image that is in it; empty when that is not known.
    var image: String

    var name: String { QMPCommands.name(drive) }
    /// Where it is in the machine's tree of objects.
    var path: String
    var hasMedium: Bool { state?.hasMedium ?? !image.isEmpty }
  }

  /// Every drive of the machine.
  func entries() -> [Entry] {
    let reply = try? machine.ask(.drives, Empty(), as: DrivesReply.self)
    return machine.settings.drives.map { drive in
      var drive = drive
      // An overlay is qcow2, whatever it lies on.
      if !drive.isCDROM, machine.media[drive.slot] != nil { drive.format = "qcow2" }
      return Entry(
        drive: drive, state: reply?.drives.first { $0.slot == drive.slot },
        image: machine.media[drive.slot] ?? drive.image,
        path: QOMTree.path(ofDrive: drive.slot, machine))
    }
  }

  // MARK: - QMP

  static func qmp(_ entry: Entry) -> JSONValue {
    let drive = entry.drive
    var value: [String: JSONValue] = [
      "device": .string(entry.name), "type": "unknown", "removable": .bool(drive.isCDROM),
      "locked": .bool(entry.state?.isLocked ?? false), "qdev": .string(entry.path),
      "io-status": "ok",
    ]
    if entry.hasMedium {
      let image: JSONValue = [
        "filename": .string(entry.image), "format": .string(drive.format),
        "virtual-size": JSONValue(bits: entry.state?.byteCount ?? 0),
      ]
      value["inserted"] = [
        "file": .string(entry.image), "ro": .bool(drive.isReadOnly || drive.isCDROM),
        "drv": .string(drive.format), "backing_file_depth": 0, "encrypted": false,
        "detect_zeroes": "off", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0,
        "iops_wr": 0, "write_threshold": 0, "image": image,
        "cache": [
          "writeback": .bool(drive.cache != "writethrough"),
          "direct": .bool(drive.cache == "none"), "no-flush": false,
        ],
      ]
    }
    if drive.isCDROM { value["tray_open"] = .bool(entry.state?.isTrayOpen ?? false) }
    return .object(value)
  }

  static func statistics(_ entry: Entry) -> JSONValue {
    var stats: [String: JSONValue] = ["account_invalid": true, "account_failed": true]
    for name in [
      "unmap_bytes", "unmap_operations", "unmap_total_time_ns", "unmap_merged", "rd_merged",
      "wr_merged", "wr_highest_offset", "failed_rd_operations", "failed_wr_operations",
      "failed_flush_operations", "failed_unmap_operations", "invalid_rd_operations",
      "invalid_wr_operations", "invalid_flush_operations", "invalid_unmap_operations",
    ] {
      stats[name] = 0
    }
    for (name, value) in Self.counts(entry) { stats[name] = JSONValue(bits: value) }
    stats["timed_stats"] = []
    return ["device": .string(entry.name), "qdev": .string(entry.path), "stats": .object(stats)]
  }

  /// What is counted, by QEMU's names.
  private static func counts(_ entry: Entry) -> [(name: String, value: UInt64)] {
    let state = entry.state
    return [
      ("rd_bytes", state?.readBytes ?? 0), ("wr_bytes", state?.writtenBytes ?? 0),
      ("rd_operations", state?.reads ?? 0), ("wr_operations", state?.writes ?? 0),
      ("flush_operations", state?.flushes ?? 0), ("wr_total_time_ns", state?.writeTime ?? 0),
      ("rd_total_time_ns", state?.readTime ?? 0), ("flush_total_time_ns", state?.flushTime ?? 0),
    ]
  }

  // MARK: - The human monitor

  static func text(_ entry: Entry) -> String {
    let drive = entry.drive
    let isReadOnly = drive.isReadOnly || drive.isCDROM
    var text = "\(entry.name): "
    text +=
      entry.hasMedium
      ? "\(entry.image) (\(drive.format)\(isReadOnly ? ", read-only" : ""))\n" : "[not inserted]\n"
    text += "    Attached to:      \(entry.path)\n"
    if drive.isCDROM {
      let isOpen = entry.state?.isTrayOpen ?? false
      text +=
        "    Removable device: \(entry.state?.isLocked ?? false ? "" : "not ")locked, "
        + "tray \(isOpen ? "open" : "closed")\n"
    }
    if entry.hasMedium {
      let mode =
        switch drive.cache {
        case "writethrough": "writethrough"
        case "none": "writeback, direct"
        default: "writeback"
        }
      text += "    Cache mode:       \(mode)\n"
    }
    return text
  }

  static func statisticsText(_ entry: Entry) -> String {
    "\(entry.name): "
      + counts(entry).map { "\($0.name)=\($0.value)" }.joined(separator: " ") + "\n"
  }

  // MARK: - Discs

  private func drive(device: String?, id: String?) throws(CommandError) -> MonitorSettings.Drive {
    guard (device == nil) != (id == nil) else {
      throw CommandError("Need exactly one of 'device' and 'id'")
    }
    let found = machine.settings.drives.first {
      if let device { return QMPCommands.name($0) == device }
      return id == QOMTree.path(ofDrive: $0.slot, machine)
    }
    guard let found else {
      throw CommandError("Device '\(device ?? id ?? "")' not found", .deviceNotFound)
    }
    guard found.isCDROM else {
      throw CommandError("Device '\(device ?? id ?? "")' is not removable")
    }
    return found
  }

  /// Asks for a change; a drive that is busy is asked again for a while.
  private func ask<Q: WireCodable>(
    _ control: Control, _ request: Q, _ image: [Descriptor], _ name: String
  ) throws(CommandError) {
    let end = HostClock.monotonic() + 3_000_000_000
    while true {
      do throws(CommandError) {
        _ = try machine.ask(control, request, image, as: Empty.self)
        return
      } catch {
        if error.description.contains("has locked the tray") {
          throw CommandError(
            "Device '\(name)' is locked and force was not specified, wait for tray to open and "
              + "try again")
        }
        guard error.description.hasSuffix("is busy"), HostClock.monotonic() < end else {
          throw error
        }
        var poller = Poller()
        _ = try? poller.wait(timeout: 50_000_000)
      }
    }
  }

  func eject(device: String?, id: String?, force: Bool) throws(CommandError) {
    let drive = try drive(device: device, id: id)
    try ask(
      .medium, MediumRequest(slot: drive.slot, .eject, isForced: force), [], device ?? id ?? "")
    machine.media[drive.slot] = ""
  }

  func change(
    device: String?, id: String?, file: String, format: String?, mode: String?, force: Bool
  ) throws(CommandError) {
    let drive = try drive(device: device, id: id)
    guard format == nil || format == "raw" else {
      throw CommandError("a disc's image has the format raw")
    }
    guard mode != "read-write" else { throw CommandError("a disc cannot be written") }
    let (image, byteCount) = try machine.openMedium(file)
    try ask(
      .medium,
      MediumRequest(slot: drive.slot, .insert, isForced: force, byteCount: byteCount), [image],
      device ?? id ?? "")
    machine.media[drive.slot] = file
  }

  // MARK: - Sizes

  /// Does `block_resize`; an image is known by its drive's name, as its nodes have none.
  func resize(device: String?, node: String?, to size: Int64) throws(CommandError) {
    guard let drive = machine.settings.drives.first(where: { QMPCommands.name($0) == device })
    else {
      let name = device == nil ? node ?? "" : ""
      throw CommandError("Cannot find device='\(device ?? "")' nor node-name='\(name)'")
    }
    guard size >= 0 else { throw CommandError("Parameter 'size' expects a >0 size") }
    let name = QMPCommands.name(drive)
    guard !drive.isCDROM else {
      throw CommandError("Device '\(name)' cannot be resized: it is a CD-ROM drive")
    }
    guard size <= 1 << 62 else { throw CommandError("Could not resize file: File too large") }
    try ask(
      .resize, ResizeRequest(slot: drive.slot, byteCount: UInt64(size)), [], name)
  }
}
