// SPDX-License-Identifier: Apache-2.0

/// Work that the endpoint does for a drive; a channel has at most one at a time.
///
/// The request is part of the device's state: after a restart
/// ``IDEController/request(channel:)`` gives the same one, and doing it again has the
/// same effect.
public struct IDERequest: Equatable, Sendable {
  /// What to do with the image.
  public enum Kind: Equatable, Sendable {
    /// Read `count` sectors.
    case read(sector: UInt64, count: UInt32)
    /// Write `count` sectors; `durable` asks for a flush before it is complete.
    case write(sector: UInt64, count: UInt32, durable: Bool)
    /// Check that `count` sectors can be read; no data moves.
    case verify(sector: UInt64, count: UInt32)
    /// Give up what lies under the ranges of a list of `blocks` times 512 bytes (ACS-2, 7.10).
    case trim(blocks: UInt32)
    /// Make everything written durable.
    case flush
    /// Copy a range of the channel's PIO buffer to the guest; the image has no part in it.
    case copyBuffer(Range<Int>)
  }

  /// Where the data goes to or comes from.
  public enum Transfer: Equatable, Sendable {
    /// Nowhere.
    case none
    /// This range of the channel's PIO buffer.
    case buffer(Range<Int>)
    /// Guest memory: this part of the window that the PRD table describes.
    case window(offset: UInt32, byteCount: UInt32)
  }

  /// 0 or 1.
  public var channel: Int
  /// 0 (master) or 1 (slave).
  public var drive: Int
  /// Tells this request from earlier ones of the same channel.
  public var tag: UInt32
  /// Bytes in a sector: 512, or 2,048 for a CD-ROM.
  public var sectorSize: UInt32
  /// What to do.
  public var kind: Kind
  /// Where the data is.
  public var transfer: Transfer
}

/// How a request ended.
public enum IDEResult: Equatable, Sendable {
  /// All of it was done.
  case ok
  /// The image failed at `sector`; for a flush the sector means nothing.
  case failed(sector: UInt64)
  /// The core refused to move the data to or from guest memory.
  case refusedByBus
}

/// What the core found when the guest set the start bit.
public struct IDEWindow: Equatable, Sendable {
  /// The sum of the region sizes in the PRD table.
  public var byteCount: UInt32
  /// Whether the table and the direction were in order.
  public var isValid: Bool

  public init(byteCount: UInt32, isValid: Bool) {
    self.byteCount = byteCount
    self.isValid = isValid
  }
}

/// What is plugged in at one place of a channel.
public enum IDEDriveKind: Equatable, Sendable {
  /// Nothing.
  case absent
  /// A disk of this many sectors of 512 bytes.
  case disk(sectorCount: UInt64)
  /// A CD-ROM drive; `nil` without a disc, else its count of sectors of 2,048 bytes.
  case cdrom(sectorCount: UInt64?)
}
