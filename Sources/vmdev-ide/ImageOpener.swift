// SPDX-License-Identifier: Apache-2.0

import BlockImage
import DeviceHost
import DeviceProtocol
import ImageFiles
import LinuxSystem

/// Why a drive's image could not be opened, in words.
struct OpenError: Error {
  var reason: String
  init(_ reason: String) { self.reason = reason }
}

/// The key of a drive; it is overwritten when the images are open.
private final class DriveKey {
  let value: ImageKey

  init(_ file: Descriptor) throws(OpenError) {
    do throws(ImageKey.Failure) { value = try ImageKey(file) } catch { throw OpenError("\(error)") }
  }
}

/// Opens a drive's image with the chain of files behind it, before the device serves.
struct ImageOpener {
  /// The channel over which the launcher opens backing files.
  let launcher: Channel
  /// The drive's place in the settings.
  let drive: Int
  /// Whether the files were opened to pass the host's page cache.
  let isDirect: Bool
  /// The key of the encrypted images of the chain.
  private let key: DriveKey?
  private var sequence: UInt32 = 0

  /// The most images in a chain.
  private static let longestChain = 16
  /// How long the launcher may take to open a file, in nanoseconds.
  private static let patience: UInt64 = 10_000_000_000

  /// Makes an opener for a drive.
  ///
  /// - Parameters:
  ///   - launcher: The channel to the launcher.
  ///   - drive: The drive's place in the settings.
  ///   - key: The file with its key, if it has one.
  ///   - isDirect: Whether its files were opened to pass the host's page cache.
  /// - Throws: When the key can't be read.
  init(launcher: Channel, drive: Int, key: Descriptor?, isDirect: Bool = false)
    throws(OpenError)
  {
    self.isDirect = isDirect
    self.launcher = launcher
    self.drive = drive
    self.key = try key.map { (file) throws(OpenError) in try DriveKey(file) }
  }

  /// Opens an image of a given format; `depth` images lie in front of it.
  mutating func open(
    _ file: Descriptor, _ format: IDESettings.Drive.Format, isWritable: Bool,
    dataFile: Descriptor? = nil, depth: Int = 0
  ) throws(OpenError) -> DriveImage {
    switch format {
    case .raw:
      let storage = try storage(file, isWritable)
      let block = storage.blockByteCount
      guard !isWritable || storage.byteCount % UInt64(block) == 0 else {
        throw OpenError(
          "its length of \(storage.byteCount) bytes is no multiple of the host disk's blocks of \(block) "
            + "bytes, which cache = \"none\" needs of a raw image that is written")
      }
      return .raw(RawImage(storage: storage, writable: isWritable))
    case .qcow2:
      let header = try header(of: file)
      let backing = try backing(header, depth: depth)
      let data = try self.dataFile(header, dataFile, isWritable: isWritable, depth: depth)
      var storage = try storage(file, isWritable)
      do throws(BlockImageError) {
        let cipher = try key?.value.cipher(of: header, on: &storage)
        if header.isEncrypted, cipher == nil { throw .keyMissing }
        return .qcow2(
          try QCOW2Image(
            storage: storage, writable: isWritable, backing: backing, dataFile: data,
            decompressor: Inflater(), cipher: cipher))
      } catch {
        if case .keyMissing = error {
          throw OpenError("\(error); the machine file names it with key = \"file:PATH\"")
        }
        throw OpenError("\(error)")
      }
    }
  }

  private func storage(_ file: Descriptor, _ isWritable: Bool) throws(OpenError) -> ImageFile {
    do throws(SystemError) {
      return try ImageFile(file, isWritable: isWritable, isDirect: isDirect)
    } catch {
      throw OpenError("\(error)")
    }
  }

  private func header(of file: Descriptor) throws(OpenError) -> QCOW2Header {
    var storage = try storage(file, false)
    do throws(BlockImageError) { return try QCOW2Header.read(from: &storage) } catch {
      throw OpenError("\(error)")
    }
  }

  /// The file in which the image keeps its data: the machine file names it, and for a backing
  /// image, which is only read, the image itself.
  private mutating func dataFile(
    _ header: QCOW2Header, _ file: Descriptor?, isWritable: Bool, depth: Int
  ) throws(OpenError) -> ImageFile? {
    guard header.hasDataFile else {
      if file == nil { return nil }
      throw OpenError("it keeps its data in itself; the machine file must not give a data-file")
    }
    if let file { return try storage(file, isWritable) }
    let name = header.dataFileName ?? ""
    guard depth > 0 else {
      throw OpenError(
        "it keeps its data in another file (\"\(name)\"); the machine file names that with "
          + "data-file = \"PATH\"")
    }
    return try storage(try request(name, depth: depth), false)
  }

  private mutating func backing(_ header: QCOW2Header, depth: Int) throws(OpenError)
    -> BackingImage<ImageFile, Inflater>?
  {
    guard let name = header.backingFileName else { return nil }
    guard depth + 1 < Self.longestChain else {
      throw OpenError("the chain of backing files has more than \(Self.longestChain) images")
    }
    let format: IDESettings.Drive.Format
    switch header.backingFormat {
    case "raw": format = .raw
    case "qcow2": format = .qcow2
    case let other?:
      throw OpenError("the backing file \"\(name)\" is of format \"\(other)\", not raw or qcow2")
    case nil:
      throw OpenError(
        "the header names the backing file \"\(name)\" without its format, and formats are not "
          + "guessed; set it with qemu-img rebase -u -F")
    }
    let below = try request(name, depth: depth + 1)
    do throws(OpenError) {
      return BackingImage(try open(below, format, isWritable: false, depth: depth + 1))
    } catch {
      throw OpenError("backing file \"\(name)\": \(error.reason)")
    }
  }

  private mutating func request(_ name: String, depth: Int) throws(OpenError) -> Descriptor {
    sequence &+= 1
    let message = BackingRequest(
      drive: UInt8(truncatingIfNeeded: drive), depth: UInt8(truncatingIfNeeded: depth), name: name)
    do throws(ChannelError) {
      try launcher.send(
        LaunchRequest.openBacking.rawValue, sequence: sequence, payload: message.wireBytes)
      let packet = try launcher.receive(timeout: Self.patience)
      guard packet.header.request == LaunchRequest.openBacking.rawValue,
        packet.header.flags.contains(.reply), packet.header.sequence == sequence
      else { throw .broken(ProtocolError("expected the reply to openBacking")) }
      if packet.header.flags.contains(.refusal) {
        throw .refused((try? packet.decode()) ?? Refusal("the launcher gave no reason"))
      }
      guard let file = packet.descriptors.first else {
        throw .broken(ProtocolError("no descriptor with the backing file"))
      }
      return file
    } catch {
      throw OpenError("backing file \"\(name)\": \(error)")
    }
  }
}
