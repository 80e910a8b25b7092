// SPDX-License-Identifier: Apache-2.0

public import BlockImage
internal import DiskEncryption
public import LinuxSystem

/// The key of encrypted images, as a file holds it: all of its bytes, with a newline at the end
/// if there is one.
public struct ImageKey: ~Copyable, Sendable {
  private let password: Secret

  /// The longest key in bytes.
  public static let mostBytes = 4096

  /// Why a key could not be read.
  public enum Failure: Error, CustomStringConvertible {
    case system(SystemError)
    case empty
    case tooLong

    public var description: String {
      switch self {
      case .system(let error): "the key can't be read: \(error)"
      case .empty: "the key is empty"
      case .tooLong: "the key has more than \(ImageKey.mostBytes) bytes"
      }
    }
  }

  /// Reads a key to its end.
  ///
  /// A regular file is read from its start, so that it can be read again by a process that
  /// takes this one's place.
  public init(_ file: Descriptor) throws(Failure) {
    var buffer = Secret(count: Self.mostBytes + 1)
    var filled = 0
    do throws(SystemError) {
      while filled < buffer.count {
        var span = buffer.mutableSpan
        var rest = span._mutatingExtracting(filled..<span.count)
        let got =
          file.isRegularFile
          ? try file.read(into: &rest, at: UInt64(filled)) : try file.read(into: &rest)
        if got == 0 { break }
        filled += got
      }
    } catch {
      throw .system(error)
    }
    guard filled > 0 else { throw .empty }
    guard filled <= Self.mostBytes else { throw .tooLong }
    password = Secret(buffer.span.extracting(0..<filled))
  }

  /// Makes the LUKS header of a new image that this key is to open.
  ///
  /// It asks the host for random bytes, which a sandbox may not allow.
  ///
  /// - Returns: The header with the material of its slots.
  /// - Throws: When the library fails.
  public func newHeader() throws(BlockImageError) -> [UInt8] { try LUKSHeader.make(password) }

  /// Makes the cipher of an encrypted image; `nil` for one that is not encrypted.
  ///
  /// - Parameters:
  ///   - header: The image's header.
  ///   - storage: The image file.
  /// - Returns: The cipher.
  /// - Throws: An error that names the field at fault, or that the key is wrong.
  public func cipher<Storage: BlockStorage & ~Copyable>(
    of header: QCOW2Header, on storage: inout Storage
  ) throws(BlockImageError) -> (any SectorCipher)? {
    guard header.isEncrypted else { return nil }
    return try header.encryptionHeader(on: &storage)
      .unlock(password, at: header.encryptionOffset, on: &storage)
  }
}
