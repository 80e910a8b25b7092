// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
public import BlockImage
import LinuxSystem
public import Sandbox

@main
struct VMImage: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vmimage",
    abstract: "Make, look at, check and change disk images.",
    discussion: """
      Images are raw or qcow2. Their bytes are read by a worker in a sandbox that can reach \
      nothing but the files of the command. Exit code 0 says that all is well, 1 that the command \
      failed (compare: the disks differ; check: 2 errors, 3 leaks), 64 that the command line is \
      wrong.
      """,
    version: "bulkhead 0.1.0",
    subcommands: [
      Create.self, Info.self, Check.self, Convert.self, Compare.self, Map.self, Snapshot.self,
      Resize.self, Commit.self, Rebase.self, Bench.self,
    ])
}

extension Format: ExpressibleByArgument {}
extension QCOW2Repair: ExpressibleByArgument {}
extension IsolationLevel: ExpressibleByArgument {}

struct CommonOptions: ParsableArguments {
  @Flag(name: [.customShort("U"), .long], help: "Read images that another process writes to.")
  var forceShare = false
  @Option(
    help: "strict or relaxed: whether a layer of the sandbox that can't be had is an error.")
  var isolation: IsolationLevel = .relaxed
  @Option(
    help: """
      A file with the key of encrypted images: all of its bytes, a newline at the end included.
      """)
  var keyFile: String?
  @Option(help: "The number of an open file with that key.") var keyFD: Int32?

  /// Whether a key comes with the command.
  var hasKey: Bool { keyFile != nil || keyFD != nil }

  func validate() throws {
    guard keyFile == nil || keyFD == nil else {
      throw ValidationError("--key-file and --key-fd exclude each other")
    }
    if let keyFD, keyFD < 0 { throw ValidationError("--key-fd must be 0 or more") }
  }
}

/// A command on images: what it opens, and what its worker does.
protocol ImageCommand: ParsableCommand {
  var common: CommonOptions { get }
  var operands: [Operand] { get }
  var writesBacking: Bool { get }
  /// Whether a new image is to be encrypted.
  var encrypts: Bool { get }
  /// How many threads the work is to be shared by.
  var threadCount: Int { get }
  /// Whether files are to be used past the host's page cache.
  var isDirect: Bool { get }
  /// The exit code of a failure.
  var failureCode: Int32 { get }
  /// Does the work in the sandbox; returns the exit code.
  func work(_ worker: Worker) throws(ToolError) -> Int32
}

extension ImageCommand {
  var writesBacking: Bool { false }
  var encrypts: Bool { false }
  var threadCount: Int { 0 }
  var isDirect: Bool { false }
  var failureCode: Int32 { 1 }

  func run() {
    guard Worker.isRunning else {
      var front = Front(common, writesBacking: writesBacking, isDirect: isDirect)
      ThisProcess.exit(front.run(operands, failureCode: failureCode))
    }
    do throws(ToolError) {
      let worker = try Worker(
        operands, common, encrypts: encrypts, threads: threadCount, isDirect: isDirect)
      ThisProcess.exit(try work(worker))
    } catch {
      Worker.complain(error.description)
      ThisProcess.exit(error.code == 1 ? failureCode : error.code)
    }
  }
}

/// A size with a suffix, as qemu-img takes it: b, k, M, G, T, P, E.
struct ByteSize: ExpressibleByArgument {
  var bytes: UInt64
  init?(argument: String) {
    var digits = argument[...]
    var shift: UInt64 = 0
    if let last = argument.last, let place = "bkmgtpe".firstIndex(of: Character(last.lowercased()))
    {
      shift = UInt64("bkmgtpe".distance(from: "bkmgtpe".startIndex, to: place)) * 10
      digits = digits.dropLast()
    }
    if digits.contains("."), let value = Double(digits), value >= 0, value < 1e18 {
      let scaled = value * Double(UInt64(1) << shift)
      guard scaled < 9e18 else { return nil }
      bytes = UInt64(scaled)
      return
    }
    guard let number = UInt64(digits), number.leadingZeroBitCount > Int(shift) else { return nil }
    bytes = number << shift
  }
}
