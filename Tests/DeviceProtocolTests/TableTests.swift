// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import TestSupport
import Testing

@Suite struct TableTests {
  let table: Table
  init() throws { table = try Table.load() }

  static func cases<R: RawRepresentable>(_ type: R.Type) -> [String: UInt64]
  where R.RawValue: FixedWidthInteger {
    var found: [String: UInt64] = [:]
    for raw in 0..<256 {
      if let value = R(rawValue: R.RawValue(truncatingIfNeeded: raw)) {
        found["\(value)"] = UInt64(raw)
      }
    }
    return found
  }

  @Test func `Every request is in the table, and the reverse`() {
    let device = Dictionary(uniqueKeysWithValues: table.device.map { ($0.name, $0.number) })
    let launch = Dictionary(uniqueKeysWithValues: table.launch.map { ($0.name, $0.number) })
    #expect(
      device
        == Dictionary(uniqueKeysWithValues: Request.allCases.map { ("\($0)", $0.rawValue) }))
    #expect(
      launch
        == Dictionary(uniqueKeysWithValues: LaunchRequest.allCases.map { ("\($0)", $0.rawValue) }))
  }

  @Test func `Every enumeration has the table's cases and values`() {
    let found: [String: [String: UInt64]] = [
      "RegisterKind": Self.cases(RegisterKind.self),
      "BARClaim.Kind": Self.cases(BARClaim.Kind.self),
      "BackingClaim.Kind": Self.cases(BackingClaim.Kind.self),
      "DescriptorClaim.Kind": Self.cases(DescriptorClaim.Kind.self),
      "DMARequest.Direction": Self.cases(DMARequest.Direction.self),
      "PowerRequest.Action": Self.cases(PowerRequest.Action.self),
      "CoreSettings.Accelerator": Self.cases(CoreSettings.Accelerator.self),
      "CoreSettings.OnPanic": Self.cases(CoreSettings.OnPanic.self),
      "DriveSnapshotRequest.Action": Self.cases(DriveSnapshotRequest.Action.self),
      "StateFileRequest.Action": Self.cases(StateFileRequest.Action.self),
      "OverlayRequest.Action": Self.cases(OverlayRequest.Action.self),
      "NoticeMessage.Kind": Self.cases(NoticeMessage.Kind.self),
      "NoticeMessage.Action": Self.cases(NoticeMessage.Action.self),
      "MonitorSettings.Stream": Self.cases(MonitorSettings.Stream.self),
      "CoreSettings.OnFault": Self.cases(CoreSettings.OnFault.self),
      "IDESettings.Drive.Format": Self.cases(IDESettings.Drive.Format.self),
      "IDESettings.Drive.ErrorPolicy": Self.cases(IDESettings.Drive.ErrorPolicy.self),
      "IDESettings.Drive.Cache": Self.cases(IDESettings.Drive.Cache.self),
      "MediumRequest.Action": Self.cases(MediumRequest.Action.self),
      "SerialSettings.Backend": Self.cases(SerialSettings.Backend.self),
      "FaultMessage.Kind": Self.cases(FaultMessage.Kind.self),
      "LogLevel": Self.cases(LogLevel.self),
      "SlotOperation": Self.cases(SlotOperation.self),
      "SlotState": [
        "idle": UInt64(SlotState.idle), "requested": UInt64(SlotState.requested),
        "answered": UInt64(SlotState.answered), "copying": UInt64(SlotState.copying),
      ],
    ]
    #expect(found == table.enums.mapValues(\.values))
  }

  @Test func `Every layout constant has the table's value`() {
    typealias L = LaneLayout
    typealias S = StateLayoutInPage
    func word(_ value: Int) -> UInt64 { UInt64(value) }
    let lane: [String: UInt64] = [
      "magic": UInt64(L.magic), "version": UInt64(L.version), "magicOffset": word(L.magicOffset),
      "versionOffset": word(L.versionOffset), "slotCountOffset": word(L.slotCountOffset),
      "doorbellOffset": word(L.doorbellOffset), "sleepingOffset": word(L.sleepingOffset),
      "headOffset": word(L.headOffset), "tailOffset": word(L.tailOffset),
      "countersOffset": word(L.countersOffset), "counters": word(L.counters),
      "registersOffset": word(L.registersOffset), "registerEntries": word(L.registerEntries),
      "entryValid": L.entryValid, "entryValidWithPosts": L.entryValidWithPosts,
      "ringOffset": word(L.ringOffset), "ringCapacity": word(L.ringCapacity),
      "ringEntryBytes": word(L.ringEntryBytes), "slotsOffset": word(L.slotsOffset),
      "slotBytes": word(L.slotBytes), "mostSlots": word(L.mostSlots),
      "slotState": word(L.slotState), "slotOperation": word(L.slotOperation),
      "slotWidth": word(L.slotWidth), "slotRegion": word(L.slotRegion),
      "slotRegisterOffset": word(L.slotRegisterOffset), "slotValue": word(L.slotValue),
      "slotItems": word(L.slotItems), "slotSequence": word(L.slotSequence),
      "slotDescriptorBytes": word(L.slotDescriptorBytes), "slotWindow": word(L.slotWindow),
      "slotReplyValue": word(L.slotReplyValue), "slotReplyItems": word(L.slotReplyItems),
      "slotWaiting": word(L.slotWaiting), "slotCopyWindow": word(L.slotCopyWindow),
      "slotCopyDirection": word(L.slotCopyDirection),
      "slotCopyWindowOffset": word(L.slotCopyWindowOffset),
      "slotCopyBounceOffset": word(L.slotCopyBounceOffset),
      "slotCopyByteCount": word(L.slotCopyByteCount), "slotCopyDone": word(L.slotCopyDone),
      "slotBlock": word(L.slotBlock),
      "blockBytes": word(L.blockBytes),
    ]
    let clock: [String: UInt64] = [
      "byteCount": word(ClockLayout.byteCount), "sequenceOffset": word(ClockLayout.sequenceOffset),
      "runningOffset": word(ClockLayout.runningOffset),
      "valueOffset": word(ClockLayout.valueOffset),
    ]
    let state: [String: UInt64] = [
      "magic": UInt64(S.magic), "version": UInt64(S.version), "magicOffset": word(S.magicOffset),
      "versionOffset": word(S.versionOffset), "activeOffset": word(S.activeOffset),
      "layoutWordOffset": word(S.layoutWordOffset), "layoutOffset": word(S.layoutOffset),
      "mostLayoutBytes": word(S.mostLayoutBytes), "recordsOffset": word(S.recordsOffset),
      "recordBytes": word(S.recordBytes), "bulkOffset": word(S.bulkOffset),
      "recordNumber": word(S.recordNumber), "recordTail": word(S.recordTail),
      "recordCount": word(S.recordCount), "recordSequences": word(S.recordSequences),
      "recordLayoutWord": word(S.recordLayoutWord), "recordValues": word(S.recordValues),
      "mostValueBytes": word(S.mostValueBytes),
    ]
    #expect(["lane": lane, "clock": clock, "state": state] == table.layouts)
  }

  @Test(arguments: ["LaneLayout", "ClockPage", "StatePage"])
  func `No layout constant of the code is missing in the table`(file: String) throws {
    let path = root.appending(path: "Sources/DeviceProtocol/\(file).swift")
    let text = try String(contentsOf: path, encoding: .utf8)
    let names = text.split(separator: "\n").compactMap { line -> String? in
      guard let found = line.range(of: "public static let ") else { return nil }
      return String(line[found.upperBound...].prefix { $0.isLetter || $0.isNumber })
    }
    var known = Set(table.layouts.values.flatMap(\.keys))
    known.formUnion(table.enums["SlotState"]?.values.keys.map { $0 } ?? [])
    #expect(!names.isEmpty)
    #expect(Set(names).subtracting(known) == [])
  }

  @Test func `Every limit and magic number has the table's value`() {
    let found: [String: UInt64] = [
      "magic": UInt64(Hello.magic), "version": UInt64(Hello.version),
      "headerBytes": UInt64(Header.byteCount), "longestMessage": UInt64(Header.longestMessage),
      "flagReply": UInt64(Header.Flags.reply.rawValue),
      "flagRefusal": UInt64(Header.Flags.refusal.rawValue),
      "longestReason": UInt64(Refusal.longest), "mostRegions": UInt64(Claims.mostRegions),
      "mostRegisters": UInt64(Claims.mostRegisters), "mostWindows": UInt64(Claims.mostWindows),
      "noMemory": UInt64(BARClaim.noMemory), "mostDescriptors": 32,
      "mostText": UInt64(ScreendumpReply.mostText), "stateArray": UInt64(StateLayout.array),
    ]
    #expect(found == table.constants)
  }

  @Test func `The table and the code have the same structures`() {
    #expect(Set(table.structs.keys) == Set(wireTypes.keys))
  }

  @Test(arguments: Vector.golden)
  func `A message's bytes are its fields as the table has them`(vector: Vector) throws {
    let value = try decodeMessage(vector.bytes, as: vector.type)
    #expect(try encode(value, as: vector.type) == Array(vector.bytes.dropFirst(16)))
    let header = try Header(wireBytes: Array(vector.bytes.prefix(16)))
    #expect(try encode(header, as: "Header") == Array(vector.bytes.prefix(16)))
  }

  /// Encodes a value by the table alone, its properties found by the fields' names.
  func encode(_ value: Any, as type: String) throws -> [UInt8] {
    let fields = try #require(table.structs[type]).fields
    var properties: [String: Any] = [:]
    for child in Mirror(reflecting: value).children { properties[child.label ?? ""] = child.value }
    #expect(Set(fields.filter { $0.constant == nil }.map(\.name)) == Set(properties.keys))
    var bytes: [UInt8] = []
    for field in fields {
      if let constant = field.constant {
        bytes += try Self.integer(constant, field.type)
      } else {
        bytes += try encodeField(try #require(properties[field.name]), field.type)
      }
    }
    return bytes
  }

  func encodeField(_ value: Any, _ type: String) throws -> [UInt8] {
    let name = type.split(separator: ":").last.map(String.init) ?? ""
    switch type.split(separator: ":").first {
    case "array":
      let elements = Mirror(reflecting: value).children.map(\.value)
      return try Self.integer(elements.count, "u32") + elements.flatMap { try encode($0, as: name) }
    case "struct": return try encode(value, as: name)
    case "enum":
      let all = try #require(table.enums[name])
      return try Self.integer(try #require(all.values["\(value)"]), all.type)
    case "fixed": return try #require(value as? [UInt8])
    case "bytes":
      let bytes = try #require(value as? [UInt8])
      return try Self.integer(bytes.count, "u32") + bytes
    case "string":
      let bytes = Array(try #require(value as? String).utf8)
      return try Self.integer(bytes.count, "u32") + bytes
    case "bool": return [try #require(value as? Bool) ? 1 : 0]
    default:
      if let flags = value as? Header.Flags { return try Self.integer(flags.rawValue, type) }
      return try Self.integer(try #require(value as? any FixedWidthInteger), type)
    }
  }

  static func integer(_ value: any FixedWidthInteger, _ type: String) throws -> [UInt8] {
    let bits = try #require(Int(type.dropFirst()))
    let word = UInt64(truncatingIfNeeded: value)
    return (0..<bits / 8).map { UInt8(truncatingIfNeeded: word >> (8 * UInt64($0))) }
  }
}
