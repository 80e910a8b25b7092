// SPDX-License-Identifier: Apache-2.0

extension MachineReader {
  private typealias ErrorPolicy = Machine.Drive.ErrorPolicy

  /// Reads `[[drive]]`: at most four, each in a slot of its own.
  mutating func readDrives(_ root: Table, _ machine: inout Machine) {
    let tables = reader.tables("drive", in: root, limit: 4, example: "slot, image and format")
    var slots: [Machine.Drive.Slot: String] = [:]
    for table in tables {
      if let drive = readDrive(table, &slots) { machine.drives.append(drive) }
    }
  }

  private mutating func readDrive(
    _ table: Table, _ slots: inout [Machine.Drive.Slot: String]
  ) -> Machine.Drive? {
    let slotNames = names(Machine.Drive.Slot.self)
    if table.members["slot"] == nil { reader.missing("slot", in: table, accepted: slotNames) }
    let slot = reader.choice("slot", in: table, "a slot", as: Machine.Drive.Slot.self)
    if let slot {
      if let owner = slots[slot.value] {
        reader.report(
          slot, "\(quoted(slot.value.rawValue)) is already taken by \(owner)",
          accepted: free(slots))
      } else {
        slots[slot.value] = table.path
      }
    }
    let media =
      reader.choice("media", in: table, "a medium", as: Machine.Drive.Media.self)?.value ?? .disk
    let hasImage = table.members["image"] != nil
    if !hasImage, media == .disk {
      reader.missing("image", in: table, accepted: "the path of an image")
    }
    let image = hasImage ? paths.path("image", in: table, &reader) : media == .cdrom ? "" : nil
    let readOnly = reader.boolean("readonly", in: table)
    let isReadOnly = readOnly?.value ?? (media == .cdrom)
    if let readOnly, media == .cdrom, !readOnly.value {
      reader.report(readOnly, "a cdrom cannot be written", accepted: "true")
    }
    let format = readFormat(table, media)
    let cache = reader.choice("cache", in: table, "a cache mode", as: Machine.Drive.Cache.self)
    if let cache, media == .cdrom {
      reader.report(cache, "a cdrom is never written", accepted: "no cache key")
    }
    let backing = readBacking(table, format)
    let dataFile = readDataFile(table, format)
    let key = readKey(table, format)
    let readError = reader.choice("rerror", in: table, "a policy", as: ErrorPolicy.self)
    let writeError = reader.choice("werror", in: table, "a policy", as: ErrorPolicy.self)
    if let readError, readError.value == .enospc {
      reader.report(readError, "a read needs no space", accepted: "report, ignore, stop")
    }
    for (key, file) in [("image", hasImage ? image : nil), ("data-file", dataFile)] {
      guard let file else { continue }
      if isReadOnly {
        paths.claimReading(file, for: table.path(of: key), &reader)
      } else {
        paths.claim(file, for: table.path(of: key), &reader)
      }
    }
    guard let slot, let image, let format else { return nil }
    var drive = Machine.Drive(slot: slot.value, image: image, format: format)
    drive.media = media
    drive.isReadOnly = isReadOnly
    if let cache { drive.cache = cache.value }
    drive.backing = backing
    drive.dataFile = dataFile
    drive.key = key
    if let readError { drive.onReadError = readError.value }
    if let writeError { drive.onWriteError = writeError.value }
    return drive
  }

  private mutating func readFormat(
    _ table: Table, _ media: Machine.Drive.Media
  ) -> Machine.Drive.Format? {
    guard table.members["format"] != nil else {
      if media == .cdrom { return .raw }
      reader.missing("format", in: table, accepted: names(Machine.Drive.Format.self))
      return nil
    }
    let format = reader.choice(
      "format", in: table, "an image format", as: Machine.Drive.Format.self)
    if let format, media == .cdrom, format.value != .raw {
      reader.report(format, "a cdrom's image cannot be qcow2", accepted: "raw")
    }
    return format?.value
  }

  private mutating func readDataFile(_ table: Table, _ format: Machine.Drive.Format?) -> String? {
    guard let member = table.members["data-file"] else { return nil }
    let path = table.path(of: "data-file")
    reader.places[path] = member.node.offset
    if format == .raw {
      reader.report(
        member.keyOffset, path, "a raw image keeps its data in itself", "accepted: with qcow2")
    }
    return paths.path("data-file", in: table, &reader)
  }

  /// Reads where the key of an encrypted image is; the text itself is never a key.
  private mutating func readKey(_ table: Table, _ format: Machine.Drive.Format?) -> String? {
    guard let member = table.members["key"] else { return nil }
    let path = table.path(of: "key")
    reader.places[path] = member.node.offset
    if format == .raw {
      reader.report(
        member.keyOffset, path, "a raw image is never encrypted", "accepted: with qcow2")
    }
    guard let text = reader.string("key", in: table, accepted: "file:PATH") else { return nil }
    guard let file = paths.file(text, &reader) else {
      // The text may be a key that was put in the wrong place: it is not shown.
      if !text.value.hasPrefix("file:") {
        reader.report(text, "is not the place of a key", accepted: "file:PATH")
      }
      return nil
    }
    paths.claimReading(file, for: path, &reader)
    return file
  }

  private mutating func readBacking(
    _ table: Table, _ format: Machine.Drive.Format?
  ) -> Machine.Drive.Backing {
    guard let member = table.members["backing"] else { return .none }
    let path = table.path(of: "backing")
    let accepted = "same-folder, or a list of paths"
    reader.places[path] = member.node.offset
    if format == .raw {
      reader.report(
        member.keyOffset, path, "a raw image has no backing file", "accepted: with qcow2")
    }
    switch member.node.content {
    case .string("same-folder"): return .sameFolder
    case .string(let text):
      reader.report(
        member.node.offset, path, "\(quoted(text)) is not a rule for backing files",
        "accepted: " + accepted)
    case .array:
      let texts = reader.strings(member.node, path: path, accepted: accepted) ?? []
      for text in texts { reader.places[text.key] = text.offset }
      return .paths(texts.compactMap { paths.path($0, &reader) })
    default:
      reader.mismatch(
        member.node, path, wanted: "a string or a list", accepted: accepted)
    }
    return .none
  }

  /// Reads `[[serial]]`: at most four, COM1 first.
  mutating func readSerial(_ root: Table, _ machine: inout Machine) {
    let kinds: [PathReader.Kind] = [.stdio, .pty, .file, .unix, .connect, .null]
    for table in reader.tables("serial", in: root, limit: 4, example: "backend") {
      guard table.members["backend"] != nil else {
        reader.missing(
          "backend", in: table, accepted: kinds.map(\.rawValue).joined(separator: ", "))
        continue
      }
      let backend = paths.backend("backend", in: table, kinds: kinds, &reader)
      paths.claim(backend, for: table.path(of: "backend"), &reader)
      machine.serial.append(backend ?? .null)
    }
  }

  /// Reads `[device.NAME]`.
  mutating func readDevices(_ parent: Table, _ machine: inout Machine) {
    for name in Machine.DeviceName.allCases {
      guard let table = reader.table(name.rawValue, in: parent) else { continue }
      var device = Machine.Device()
      if name != .ide, let member = table.members["dma"] {
        reader.report(
          member.keyOffset, table.path(of: "dma"), "\(name.rawValue) does no DMA",
          "accepted: in [device.ide]")
      } else {
        device.dma = reader.choice("dma", in: table, "a kind of DMA")?.value ?? device.dma
      }
      device.onFault =
        reader.choice("on-fault", in: table, "an answer to a fault")?.value ?? device.onFault
      device.socket = paths.path("socket", in: table, &reader)
      if let socket = device.socket {
        paths.claim(.unix(socket), for: table.path(of: "socket"), &reader)
      }
      device.deadline = readDeadline(table) ?? device.deadline
      machine.devices[name] = device
    }
  }

  private mutating func readDeadline(_ table: Table) -> UInt64? {
    let form = "a whole number with ms or s, such as 500ms"
    guard let text = reader.string("deadline", in: table, accepted: form) else { return nil }
    do {
      return try TimeSpan.parse(text.value)
    } catch {
      switch error {
      case .form: reader.report(text, "\(quoted(text.value)) is not a time", accepted: form)
      case .range:
        reader.report(
          text, "\(quoted(text.value)) is out of range",
          accepted: "\(TimeSpan.text(TimeSpan.shortest)) to \(TimeSpan.text(TimeSpan.longest))")
      }
      return nil
    }
  }

  private func names<Choice: CaseIterable & RawRepresentable<String>>(
    _ type: Choice.Type
  ) -> String {
    Choice.allCases.map(\.rawValue).joined(separator: ", ")
  }

  private func free(_ slots: [Machine.Drive.Slot: String]) -> String {
    Machine.Drive.Slot.allCases.filter { slots[$0] == nil }.map(\.rawValue)
      .joined(separator: ", ")
  }
}
