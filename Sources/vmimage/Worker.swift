// SPDX-License-Identifier: Apache-2.0

import BlockImage
import ImageFiles
import LinuxSystem
import Sandbox

/// The name of a format.
enum Format: String, Sendable, CaseIterable {
  case raw
  case qcow2
}

/// A file that the worker holds.
struct HeldFile: Sendable {
  var descriptor: Descriptor
  /// Its number with the front.
  var number: UInt8
  var path: String
}

/// The key of encrypted images, read to its end; it is overwritten when the worker ends.
final class WorkerKey: Sendable {
  let value: ImageKey

  init(_ file: Descriptor) throws(ToolError) {
    do throws(ImageKey.Failure) { value = try ImageKey(file) } catch { throw ToolError("\(error)") }
  }
}

/// The part of the tool that reads images, in its sandbox.
struct Worker: Sendable {
  static let mark = "vmimage-worker"
  /// The descriptor of the first file of the command line.
  static let firstFile: Int32 = 4

  private let socket: PacketSocket
  private let files: [HeldFile]
  private let key: WorkerKey?
  private let isDirect: Bool
  /// The threads that share the work, if there are any.
  let team: Team?
  /// The LUKS header of the image that is made, if it is to be encrypted.
  let newEncryption: [UInt8]?
  private static let output = Descriptor(owning: 1)
  private static let errors = Descriptor(owning: 2)
  /// The most images in a chain, as QEMU's lists of them have it by far.
  private static let longestChain = 64

  static var isRunning: Bool { CommandLine.arguments.first == mark }

  /// Enters the sandbox.
  ///
  /// From here on files come only from the front.
  init(
    _ operands: [Operand], _ options: CommonOptions, encrypts: Bool = false, threads: Int = 0,
    isDirect: Bool = false
  ) throws(ToolError) {
    self.isDirect = isDirect
    socket = PacketSocket(Descriptor(owning: 3))
    files = operands.enumerated().map { index, operand in
      HeldFile(
        descriptor: Descriptor(owning: Self.firstFile + Int32(index)), number: UInt8(index),
        path: operand.path)
    }
    // Of all that is read it alone is not hostile, and it may come from a pipe.
    key =
      options.hasKey
      ? try WorkerKey(Descriptor(owning: Self.firstFile + Int32(operands.count))) : nil
    // So is what is random; the sandbox has no call for it.
    do throws(BlockImageError) {
      newEncryption = encrypts ? try key?.value.newHeader() : nil
    } catch {
      throw ToolError("\(error)")
    }
    let sandbox: Sandbox
    do throws(SandboxError) { sandbox = try Sandbox.enclose(.imageTool, options.isolation) } catch {
      throw ToolError("\(error)")
    }
    do throws(SystemError) { team = threads > 0 ? try Team(threads) : nil } catch {
      throw ToolError("\(error)")
    }
    do throws(SandboxError) { _ = try sandbox.seal() } catch { throw ToolError("\(error)") }
  }

  // MARK: Output

  static func print(_ text: String) { try? output.writeAll(Array(text.utf8)) }
  static func complain(_ text: String) { try? errors.writeAll(Array("vmimage: \(text)\n".utf8)) }

  // MARK: Files

  /// A file of the command line.
  func file(_ index: Int) -> HeldFile { files[index] }

  func request(_ kind: FileRequest, _ name: String, of parent: HeldFile) throws(ToolError)
    -> HeldFile
  {
    do throws(SystemError) {
      try socket.send([kind.rawValue, parent.number] + Array(name.utf8))
      let message = try socket.receive(2048)
      if message.bytes.first == 1, message.bytes.count >= 2, let file = message.descriptors.first {
        return HeldFile(
          descriptor: file, number: message.bytes[1],
          path: String(decoding: message.bytes[2...], as: UTF8.self))
      }
      let reason = String(decoding: message.bytes.dropFirst(), as: UTF8.self)
      throw SystemError(reason, 0)
    } catch {
      throw ToolError(error.number == 0 ? error.call : "\(error)")
    }
  }

  // MARK: Images

  /// Turns an error of the image library into one that names the file.
  func naming<T: ~Copyable>(
    _ file: HeldFile, _ body: () throws(BlockImageError) -> T
  ) throws(ToolError) -> T {
    do throws(BlockImageError) { return try body() } catch {
      throw ToolError("\(file.path): \(Self.words(error))")
    }
  }

  static func words(_ error: BlockImageError) -> String {
    if case .storage(.failed(let code)) = error { return SystemError.text(code) }
    if case .keyMissing = error { return "\(error) (see --key-file)" }
    return "\(error)"
  }

  func storage(_ file: HeldFile, isWritable: Bool) throws(ToolError) -> DiskFile {
    try DiskFile(file.descriptor, isWritable: isWritable, isDirect: isDirect)
  }

  /// The format of a file: what was said, or what its first bytes say.
  func format(_ file: HeldFile, _ said: Format?) throws(ToolError) -> Format {
    if let said { return said }
    var storage = try storage(file, isWritable: false)
    var magic = [UInt8](repeating: 0, count: 4)
    var span = magic.mutableSpan
    try attempt(file) { () throws(StorageError) in try storage.read(into: &span, at: 0) }
    return magic == [0x51, 0x46, 0x49, 0xFB] ? .qcow2 : .raw
  }

  func header(_ file: HeldFile) throws(ToolError) -> QCOW2Header {
    var storage = try storage(file, isWritable: false)
    return try naming(file) { () throws(BlockImageError) in try QCOW2Header.read(from: &storage) }
  }

  /// Opens an image with all that lies behind it.
  func open(
    _ file: HeldFile, _ format: Format?, isWritable: Bool = false,
    options: QCOW2Options = QCOW2Options(), depth: Int = 0
  ) throws(ToolError) -> ToolImage {
    switch try self.format(file, format) {
    case .raw:
      let storage = try storage(file, isWritable: isWritable)
      return .raw(RawImage(storage: storage, writable: isWritable))
    case .qcow2:
      let backing = try backing(of: file, depth: depth)
      return .qcow2(try open(file, backing, isWritable: isWritable, options: options))
    }
  }

  /// Opens a qcow2 image over a given backing image.
  func open(
    _ file: HeldFile, _ backing: BackingImage<DiskFile, Inflater>?, isWritable: Bool,
    options: QCOW2Options = QCOW2Options()
  ) throws(ToolError) -> DiskImage {
    let header = try header(file)
    var storage = try storage(file, isWritable: isWritable)
    var data: DiskFile?
    if header.hasDataFile {
      guard let name = header.dataFileName else {
        throw ToolError("\(file.path): the image does not name its external data file")
      }
      data = try self.storage(try request(.data, name, of: file), isWritable: isWritable)
    }
    do throws(BlockImageError) {
      let cipher = try key?.value.cipher(of: header, on: &storage)
      return try DiskImage(
        storage: storage, writable: isWritable, backing: backing, dataFile: data,
        decompressor: Inflater(), cipher: cipher, options: options)
    } catch {
      throw ToolError("\(file.path): \(Self.words(error))")
    }
  }

  /// The format that an image gives for its backing file.
  func backingFormat(_ header: QCOW2Header, _ file: HeldFile) throws(ToolError) -> Format? {
    guard let text = header.backingFormat else { return nil }
    guard let format = Format(rawValue: text) else {
      throw ToolError("\(file.path): the backing file's format \"\(text)\" is not supported")
    }
    return format
  }

  func backing(of file: HeldFile, depth: Int) throws(ToolError)
    -> BackingImage<DiskFile, Inflater>?
  {
    let header = try header(file)
    guard let name = header.backingFileName else { return nil }
    guard depth < Self.longestChain else {
      throw ToolError("the chain of backing files has more than \(Self.longestChain) images")
    }
    let below = try request(.backing, name, of: file)
    return BackingImage(try open(below, try backingFormat(header, file), depth: depth + 1))
  }

  /// A stand-in for a backing image that is not going to be read.
  func standIn(_ file: HeldFile) throws(ToolError) -> BackingImage<DiskFile, Inflater> {
    BackingImage(.raw(RawImage(storage: try storage(file, isWritable: false), writable: false)))
  }
}
