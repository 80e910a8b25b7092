// SPDX-License-Identifier: Apache-2.0

/// An exception of the processor (SDM volume 3, chapter 6), on its way to the guest.
///
/// The guest's state is still that from before the instruction, unless ``isTrap``.
struct Fault: Error, Equatable, Sendable {
  var vector: UInt8
  var errorCode: UInt32 = 0
  var hasErrorCode = false
  /// RIP is already that of the next instruction.
  var isTrap = false
  /// #GP for an address that is not canonical, which is #SS if the access was the stack's.
  var isAddress = false

  /// #DE.
  static let divide = Fault(vector: 0)
  /// #UD.
  static let undefined = Fault(vector: 6)
  /// #NM.
  static let deviceNotAvailable = Fault(vector: 7)
  /// #MF.
  static let x87 = Fault(vector: 16)
  /// #XM.
  static let simd = Fault(vector: 19)

  /// #GP with an error code, mostly zero or a selector.
  static func protection(_ code: UInt32 = 0) -> Fault {
    Fault(vector: 13, errorCode: code, hasErrorCode: true)
  }

  /// An address that is not canonical.
  static let address = Fault(vector: 13, hasErrorCode: true, isAddress: true)

  /// #SS.
  static func stack(_ code: UInt32 = 0) -> Fault {
    Fault(vector: 12, errorCode: code, hasErrorCode: true)
  }

  /// #NP.
  static func notPresent(_ code: UInt32) -> Fault {
    Fault(vector: 11, errorCode: code, hasErrorCode: true)
  }

  /// #TS.
  static func invalidTSS(_ code: UInt32) -> Fault {
    Fault(vector: 10, errorCode: code, hasErrorCode: true)
  }

  /// #PF; the address goes to CR2, which who throws this has set.
  static func page(_ code: UInt32) -> Fault {
    Fault(vector: 14, errorCode: code, hasErrorCode: true)
  }

  /// #AC.
  static let alignment = Fault(vector: 17, errorCode: 0, hasErrorCode: true)
}
