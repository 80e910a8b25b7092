// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage

struct Map: ImageCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show where the bytes of a disk are kept.")
  @OptionGroup var common: CommonOptions
  @Option(name: [.short, .long], help: "raw or qcow2; otherwise the first bytes tell.")
  var format: Format?
  @Flag(help: "Write JSON, with parts that are zero, too.") var json = false
  @Argument(help: "The image.") var image: String

  var operands: [Operand] { [Operand(path: image, access: .read)] }

  func work(_ worker: Worker) throws(ToolError) -> Int32 {
    let file = worker.file(0)
    var disk = try worker.open(file, format)
    let names = json ? [] : try chain(worker, file)
    if !json {
      Worker.print(
        Words.padded("Offset", 16) + Words.padded("Length", 16) + Words.padded("Mapped to", 16)
          + "File\n")
    }
    var isFirst = true
    var current: ImageExtent?
    var position: UInt64 = 0
    do throws(BlockImageError) {
      while position < disk.virtualSize {
        let extent = try disk.extent(at: position, limit: disk.virtualSize - position)
        position += extent.count
        if var old = current, old.joins(extent) {
          old.count += extent.count
          current = old
          continue
        }
        if let current { show(current, names, &isFirst) }
        current = extent
      }
    } catch {
      throw ToolError("\(image): \(Worker.words(error))")
    }
    if let current { show(current, names, &isFirst) }
    if json { Worker.print(isFirst ? "[]\n" : "]\n") }
    return 0
  }

  /// The files of the chain, where the data of each is.
  private func chain(_ worker: Worker, _ first: HeldFile) throws(ToolError) -> [String] {
    var names: [String] = []
    var file = first
    var said = format
    while names.count <= 64 {
      names.append(file.path)
      guard try worker.format(file, said) == .qcow2 else { break }
      let header = try worker.header(file)
      if let data = header.dataFileName, header.hasDataFile {
        names[names.count - 1] = Front.path(of: data, beside: file.path)
      }
      guard let name = header.backingFileName else { break }
      said = try worker.backingFormat(header, file)
      file = try worker.request(.backing, name, of: file)
    }
    return names
  }

  private func show(_ extent: ImageExtent, _ names: [String], _ isFirst: inout Bool) {
    guard json else {
      guard extent.isData, !extent.isZero else { return }
      let host = extent.host.map { "0x" + String($0, radix: 16) } ?? "compressed"
      let name = extent.depth < names.count ? names[extent.depth] : ""
      return Worker.print(
        Words.padded(hex(extent.offset), 16) + Words.padded(hex(extent.count), 16)
          + Words.padded(host, 16) + name + "\n")
    }
    let place = extent.host.map { ", \"offset\": \($0)" } ?? ""
    Worker.print(
      (isFirst ? "[" : ",\n") + "{ \"start\": \(extent.offset), \"length\": \(extent.count), "
        + "\"depth\": \(extent.depth), \"present\": \(extent.isPresent), "
        + "\"zero\": \(extent.isZero), \"data\": \(extent.isData)\(place)}")
    isFirst = false
  }

  private func hex(_ value: UInt64) -> String {
    value == 0 ? "0" : "0x" + String(value, radix: 16)
  }
}
