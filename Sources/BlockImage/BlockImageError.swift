// SPDX-License-Identifier: Apache-2.0

/// Why an image could not be opened, read or written.
public enum BlockImageError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The storage below failed.
  case storage(StorageError)
  /// The file is not of the format it was said to be.
  case wrongFormat(expected: String)
  /// A field of the header or of a table breaks a rule of the format.
  case malformed(field: String, value: UInt64, rule: String)
  /// The image uses a feature that this program does not have.
  case unsupported(feature: String)
  /// The image may be read but not written, for the reason given.
  case notWritable(reason: String)
  /// The request does not lie inside the virtual disk.
  case outOfRange(offset: UInt64, count: UInt64, virtualSize: UInt64)
  /// The image names a backing file that was not supplied.
  case backingFileMissing(name: String)
  /// The image keeps its data in a file that was not supplied.
  case dataFileMissing(name: String?)
  /// The image holds no such internal snapshot.
  case snapshotMissing(name: String)
  /// A compressed cluster was met and there is nothing to decompress it with.
  case noDecompressor(guestOffset: UInt64)
  /// A compressed cluster does not decompress to a whole cluster.
  case corruptCompressedCluster(guestOffset: UInt64)
  /// The image is encrypted and no key was given.
  case keyMissing
  /// The key opens none of the key slots of an encrypted image.
  case wrongKey
  /// The cipher of an encrypted image failed.
  case cipherFailed
  /// The format's limit on the size of an image file is reached.
  case imageFull

  public var description: String {
    switch self {
    case .storage(let error): error.description
    case .wrongFormat(let expected): "this is not a \(expected) image"
    case .malformed(let field, let value, let rule):
      "malformed image: \(field) is 0x\(String(value, radix: 16)), but \(rule)"
    case .unsupported(let feature): "the image needs \(feature), which is not supported"
    case .notWritable(let reason): "the image can't be written: \(reason)"
    case .outOfRange(let offset, let count, let virtualSize):
      "\(count) bytes at \(offset) are not inside the disk of \(virtualSize) bytes"
    case .backingFileMissing(let name): "the backing file \"\(name)\" was not supplied"
    case .dataFileMissing(let name):
      if let name {
        "the external data file \"\(name)\" was not supplied"
      } else {
        "the image keeps its data in an external data file that was not supplied"
      }
    case .snapshotMissing(let name): "the image holds no snapshot \"\(name)\""
    case .noDecompressor(let guestOffset):
      "the cluster at \(guestOffset) is compressed and no decompressor was supplied"
    case .corruptCompressedCluster(let guestOffset):
      "the compressed cluster at \(guestOffset) is corrupt"
    case .keyMissing: "the image is encrypted and its key was not given"
    case .wrongKey: "the key opens none of the key slots of the encrypted image"
    case .cipherFailed: "the cipher of the encrypted image failed"
    case .imageFull: "the image file has reached the largest size of its format"
    }
  }
}
