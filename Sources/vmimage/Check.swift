// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage

struct Check: ImageCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check the tables of a qcow2 image.",
    discussion: """
      Exit codes: 0 all is well, 1 the check failed, 2 there are errors, 3 there are leaked \
      clusters, 63 the format has no check.
      """)
  @OptionGroup var common: CommonOptions
  @Option(name: [.short, .long], help: "raw or qcow2; otherwise the first bytes tell.")
  var format: Format?
  @Option(name: [.short, .long], help: "What to mend: leaks or all.") var repair: QCOW2Repair?
  @Flag(help: "Write JSON.") var json = false
  @Argument(help: "The image.") var image: String

  var operands: [Operand] { [Operand(path: image, access: repair == nil ? .read : .write)] }

  func work(_ worker: Worker) throws(ToolError) -> Int32 {
    let file = worker.file(0)
    guard try worker.format(file, format) == .qcow2 else {
      throw ToolError("this image format does not support checks", code: 63)
    }
    var result = try check(worker, file, repair)
    let leaksFixed = result.leaksFixed
    let corruptionsFixed = result.corruptionsFixed
    if !json { Worker.print(result.messages.map { $0 + "\n" }.joined()) }
    if leaksFixed > 0 || corruptionsFixed > 0 {
      if !json {
        Worker.print(
          "The following inconsistencies were found and repaired:\n\n"
            + "    \(leaksFixed) leaked clusters\n    \(corruptionsFixed) corruptions\n\n"
            + "Double checking the fixed image now...\n")
      }
      result = try check(worker, file, nil)
      if !json { Worker.print(result.messages.map { $0 + "\n" }.joined()) }
    }
    if json {
      Worker.print(Self.json(result, image, leaksFixed, corruptionsFixed).text() + "\n")
    } else {
      Worker.print(Self.text(result))
    }
    return result.corruptions > 0 ? 2 : result.leaks > 0 ? 3 : 0
  }

  private func check(_ worker: Worker, _ file: HeldFile, _ repair: QCOW2Repair?)
    throws(ToolError) -> QCOW2CheckResult
  {
    let storage = try worker.storage(file, isWritable: repair != nil)
    do throws(BlockImageError) {
      var check = try QCOW2Check(storage)
      return try check.run(repair)
    } catch {
      throw ToolError("\(file.path): \(Worker.words(error))")
    }
  }

  private static func json(
    _ result: QCOW2CheckResult, _ path: String, _ leaksFixed: Int, _ corruptionsFixed: Int
  ) -> JSON {
    var members: [(String, JSON)] = [
      ("image-end-offset", .number(result.imageEnd)),
      ("total-clusters", .number(result.totalClusters)), ("check-errors", .number(0)),
    ]
    func add(_ name: String, _ value: UInt64) {
      if value > 0 { members.append((name, .number(value))) }
    }
    add("corruptions", UInt64(result.corruptions))
    add("leaks", UInt64(result.leaks))
    add("corruptions-fixed", UInt64(corruptionsFixed))
    add("leaks-fixed", UInt64(leaksFixed))
    add("allocated-clusters", result.allocatedClusters)
    add("fragmented-clusters", result.fragmentedClusters)
    add("compressed-clusters", result.compressedClusters)
    members += [("filename", .string(path)), ("format", .string("qcow2"))]
    return .object(members)
  }

  private static func text(_ result: QCOW2CheckResult) -> String {
    var text = ""
    if result.corruptions == 0, result.leaks == 0 {
      text += "No errors were found on the image.\n"
    }
    if result.corruptions > 0 {
      text +=
        "\n\(result.corruptions) errors were found on the image.\n"
        + "Data may be corrupted, or further writes to the image may corrupt it.\n"
    }
    if result.leaks > 0 {
      text +=
        "\n\(result.leaks) leaked clusters were found on the image.\n"
        + "This means waste of disk space, but no harm to data.\n"
    }
    if result.totalClusters > 0, result.allocatedClusters > 0 {
      let part = Words.percent(result.allocatedClusters, of: result.totalClusters)
      let fragmented = Words.percent(result.fragmentedClusters, of: result.allocatedClusters)
      let compressed = Words.percent(result.compressedClusters, of: result.allocatedClusters)
      text +=
        "\(result.allocatedClusters)/\(result.totalClusters) = \(part)% allocated, "
        + "\(fragmented)% fragmented, \(compressed)% compressed clusters\n"
    }
    return text + "Image end offset: \(result.imageEnd)\n"
  }
}
