// SPDX-License-Identifier: Apache-2.0

/// SMART (ATA/ATAPI-7, 6.16 and 7.52) and TRIM (ACS-2, 7.10).
extension IDEChannel {
  /// SMART: the features register says what is wanted, the address must be 4Fh and C2h.
  mutating func smart() {
    let drive = drives[active]
    let command = drive.features.current
    guard drive.lbaMid.current == 0x4F, drive.lbaHigh.current == 0xC2 else { return abort() }
    if command == 0xD8 {
      drives[active].hasSMART = true
      return drives[active].succeed()
    }
    guard drive.hasSMART else { return abort() }
    switch command {
    case 0xD0: replyInBlock(smartData())
    case 0xD1: replyInBlock(smartThresholds())
    case 0xD2:
      // 00h and F1h are the only values (7.52.2).
      guard [0x00, 0xF1].contains(drive.sectorCount.current) else { return abort() }
      drives[active].hasAttributeAutosave = drive.sectorCount.current == 0xF1
      drives[active].succeed()
    case 0xD4:
      // There is nothing to collect off-line; self-tests are not offered (word 84).
      guard drive.lbaLow.current == 0 else { return abort() }
      drives[active].succeed()
    case 0xD9:
      drives[active].hasSMART = false
      drives[active].succeed()
    case 0xDA: drives[active].succeed()  // 4Fh and C2h stay: no threshold is exceeded
    default: abort()
    }
  }

  /// The attributes: number, flags, normalized value, threshold and the raw count.
  private var attributes: [(id: UInt8, flags: UInt16, threshold: UInt8, raw: UInt32)] {
    [
      (1, 0x0003, 6, drives[active].failures),  // raw read error rate
      (5, 0x0003, 36, 0),  // reallocated sectors
      (187, 0x0032, 0, drives[active].failures),  // reported uncorrectable errors
      (197, 0x0012, 0, 0),  // pending sectors
    ]
  }

  /// The 512 bytes of SMART READ DATA, in the form that all drives have (7.52.6).
  private func smartData() -> [UInt8] {
    var data = [UInt8](repeating: 0, count: 512)
    data[0] = 0x10
    for (index, attribute) in attributes.enumerated() {
      let place = 2 + 12 * index
      data[place] = attribute.id
      data[place + 1] = UInt8(truncatingIfNeeded: attribute.flags)
      data[place + 2] = UInt8(truncatingIfNeeded: attribute.flags >> 8)
      data[place + 3] = 100
      data[place + 4] = 100
      for byte in 0..<4 {
        data[place + 5 + byte] = UInt8(truncatingIfNeeded: attribute.raw >> (8 * UInt32(byte)))
      }
    }
    data[368] = 0x02  // saves attributes by itself; no log, no self-test
    return Self.withSum(data)
  }

  private func smartThresholds() -> [UInt8] {
    var data = [UInt8](repeating: 0, count: 512)
    data[0] = 0x10
    for (index, attribute) in attributes.enumerated() {
      data[2 + 12 * index] = attribute.id
      data[2 + 12 * index + 1] = attribute.threshold
    }
    return Self.withSum(data)
  }

  /// Sets the last byte so that all add up to 0.
  private static func withSum(_ data: [UInt8]) -> [UInt8] {
    var data = data
    data[511] = 0 &- data.dropLast().reduce(0, &+)
    return data
  }

  /// DATA SET MANAGEMENT: TRIM, with a list of ranges by DMA.
  mutating func dataSetManagement() {
    let count = drives[active].requestedCount(isExtended: true)
    guard drives[active].features.current == 1, count <= mostTrimBlocks else { return abort() }
    operation = .trim
    isExtended = true
    sector = 0
    remaining = count
    drives[active].power = IDEDrive.PowerMode.active
    beginDMA()
  }
}
