// SPDX-License-Identifier: Apache-2.0

/// Disks whose size the operator changes.
extension IDEController {
  /// Whether a drive is a hard disk.
  public func isDisk(channel: Int, drive: Int) -> Bool {
    guard (0..<2).contains(channel), (0..<2).contains(drive) else { return false }
    return channels[channel].drives[drive].isPresent
      && !channels[channel].drives[drive].isPacketDevice
  }

  /// Gives a disk another size.
  ///
  /// Commands reach the new sectors at once, and the guest learns of them from the next IDENTIFY
  /// DEVICE: a disk has no way to tell by itself. What does not lie on the disk any more is
  /// answered as any address behind its end is.
  ///
  /// - Precondition: There is a disk (``isDisk(channel:drive:)``).
  public mutating func resizeDisk(channel: Int, drive: Int, sectorCount: UInt64) {
    precondition(isDisk(channel: channel, drive: drive), "no disk is there")
    channels[channel].drives[drive].kind = .disk(sectorCount: sectorCount)
  }
}
