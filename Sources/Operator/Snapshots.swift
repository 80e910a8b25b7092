// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor

/// Snapshots of the machine and overlays of its disks, by QMP and by the human monitor.
struct Snapshots {
  let machine: any MachineAccess

  // MARK: - QMP

  private static let actions: [String: SnapshotRequest.Action] = [
    "snapshot-save": .save, "snapshot-load": .load, "snapshot-delete": .delete, "savevm": .save,
    "loadvm": .load, "delvm": .delete,
  ]

  /// Begins a job; it has ended when the core says so.
  func begin(
    _ name: String, _ arguments: [String: JSONValue], _ jobs: JobList
  ) throws(CommandError) {
    let id = arguments["job-id"]?.string ?? ""
    var devices = arguments["devices"]?.array?.compactMap(\.string) ?? []
    try check(devices)
    if let state = arguments["vmstate"]?.string {
      devices = [state]
      try checkNames(devices)
    }
    try jobs.begin(id, name, machine)
    do throws(CommandError) {
      let request = SnapshotRequest(
        Self.actions[name] ?? .list, tag: arguments["tag"]?.string ?? "", job: id)
      let _: SnapshotReply = try machine.ask(.snapshot, request)
    } catch {
      jobs.end("\(id) \(error)", machine)
    }
  }

  private func checkNames(_ devices: [String]) throws(CommandError) {
    for name in devices
    where !machine.settings.drives.contains(where: { QMPCommands.name($0) == name }) {
      throw CommandError("No block device node '\(name)'")
    }
  }

  /// A snapshot is of the whole machine: every disk that is written belongs to it.
  private func check(_ devices: [String]) throws(CommandError) {
    try checkNames(devices)
    for drive in machine.settings.drives where !drive.isCDROM && !drive.isReadOnly {
      let name = QMPCommands.name(drive)
      guard devices.contains(name) else {
        throw CommandError(
          "Device '\(name)' is writable and not among the devices; a snapshot is of all of them")
      }
    }
  }

  func overlay(_ arguments: [String: JSONValue]) throws(CommandError) {
    guard let name = arguments["device"]?.string ?? arguments["node-name"]?.string else {
      throw CommandError("Parameter 'device' or 'node-name' is missing")
    }
    guard arguments["mode"]?.string ?? "absolute-paths" == "absolute-paths" else {
      throw CommandError("only the mode absolute-paths is supported")
    }
    try overlay(
      name, arguments["snapshot-file"]?.string ?? "", arguments["format"]?.string ?? "qcow2")
  }

  private func overlay(_ name: String, _ path: String, _ format: String) throws(CommandError) {
    guard let drive = machine.settings.drives.first(where: { QMPCommands.name($0) == name })
    else { throw CommandError("Cannot find device='\(name)' nor node-name=''") }
    guard format == "qcow2" else { throw CommandError("an overlay has the format qcow2") }
    guard path.utf8.count <= 1023 else { throw CommandError("the path is too long") }
    _ = try machine.askLong(
      .snapshot, SnapshotRequest(.overlay, slot: drive.slot, path: path), as: SnapshotReply.self)
    machine.media[drive.slot] = path
  }

  // MARK: - The human monitor

  func run(_ name: String, _ tag: String) throws(CommandError) {
    guard !tag.isEmpty || name == "savevm" else { throw CommandError("\(name): string expected") }
    let tag = tag.isEmpty ? Self.name(HostClock.unixNanoseconds() / 1_000_000_000) : tag
    let request = SnapshotRequest(
      Self.actions[name] ?? .list, tag: tag, isReplaced: name == "savevm")
    _ = try machine.askLong(.snapshot, request, as: SnapshotReply.self)
  }

  func overlay(line: Substring) throws(CommandError) {
    let words = line.split(separator: " ").map(String.init)
    guard (2...3).contains(words.count) else {
      throw CommandError("snapshot_blkdev: device and new-image-file expected")
    }
    try overlay(words[0], words[1], words.count > 2 ? words[2] : "qcow2")
  }

  /// QEMU's table: those that can be loaded, then those that only disks have.
  func table() throws(CommandError) -> String {
    let reply = try machine.askLong(.snapshot, SnapshotRequest(.list), as: SnapshotReply.self)
    // The state alone is of no use once the disks have forgotten their part.
    let hasDisks = machine.settings.drives.contains { !$0.isReadOnly && !$0.isCDROM }
    let whole = reply.entries.filter { $0.byteCount > 0 && ($0.drives != 0 || !hasDisks) }
    var text = whole.isEmpty ? "There is no snapshot available.\n" : ""
    if !whole.isEmpty {
      text += "List of snapshots present on all disks:\n" + Self.heading
      text += whole.map { Self.line($0, id: "--") }.joined()
    }
    for drive in machine.settings.drives {
      let partial = reply.entries.filter { $0.byteCount == 0 && $0.drives >> drive.slot & 1 == 1 }
      guard !partial.isEmpty else { continue }
      text += "\nList of partial (non-loadable) snapshots on '\(QMPCommands.name(drive))':\n"
      text += Self.heading + partial.map { Self.line($0, id: "--") }.joined()
    }
    return text
  }

  private static func padded(_ text: String, _ width: Int) -> String {
    let fill = String(repeating: " ", count: max(0, abs(width) - text.count))
    return width < 0 ? text + fill : fill + text
  }

  private static var heading: String {
    padded("ID", -10) + padded("TAG", -17) + padded("VM SIZE", 8) + padded("DATE", 20)
      + padded("VM CLOCK", 13) + padded("ICOUNT", 11) + "\n"
  }

  private static func line(_ entry: SnapshotReply.Entry, id: String) -> String {
    let milliseconds = entry.clock / 1_000_000
    let clock =
      two(milliseconds / 3_600_000) + ":" + two(milliseconds / 60_000 % 60) + ":"
      + two(milliseconds / 1000 % 60) + "." + String(1000 + milliseconds % 1000).dropFirst()
    return padded(id, -9) + " " + padded(VisibleText.escape(entry.tag), -16) + " "
      + padded(size(entry.byteCount), 8) + padded(date(UInt64(entry.seconds)), 20)
      + padded(clock, 13) + "\n"
  }

  private static func size(_ bytes: UInt64) -> String {
    var value = bytes * 10
    var unit = 0
    while value >= 10240, unit < 4 {
      value = (value + 512) / 1024
      unit += 1
    }
    let text = value % 10 == 0 || value >= 1000 ? "\(value / 10)" : "\(value / 10).\(value % 10)"
    return "\(text) " + ["B", "KiB", "MiB", "GiB", "TiB"][unit]
  }

  private static func two(_ value: UInt64) -> String { value < 10 ? "0\(value)" : "\(value)" }

  /// Year, month and day of a day since 1970 (UTC), by counting from the first of March.
  private static func civil(_ days: UInt64) -> (year: UInt64, month: UInt64, day: UInt64) {
    let shifted = days + 719_468
    let era = shifted / 146_097
    let dayOfEra = shifted % 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let place = (5 * dayOfYear + 2) / 153
    let month = place < 10 ? place + 3 : place - 9
    return (
      yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * place + 2) / 5 + 1
    )
  }

  private static func date(_ seconds: UInt64) -> String {
    let (year, month, day) = civil(seconds / 86_400)
    return "\(year)-\(two(month))-\(two(day)) \(two(seconds / 3600 % 24)):"
      + "\(two(seconds / 60 % 60)):\(two(seconds % 60))"
  }

  /// The name that a snapshot gets when the operator gives none, as QEMU makes it (in UTC).
  private static func name(_ seconds: UInt64) -> String {
    "vm-" + date(seconds).filter(\.isNumber)
  }
}
