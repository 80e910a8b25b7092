// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU
internal import Glibc

/// Memory for the translated code of one vCPU: one memory file, mapped once to be written and once
/// to be executed, never both at one address.
///
/// A process that is about to give up making executable memory makes it before.
@safe
public final class CodeMemory: Sendable {
  // SAFETY: both mappings are this object's own, of `byteCount` bytes, and stay as long as it.
  fileprivate let writable: UInt
  fileprivate let executable: UInt
  let byteCount: Int

  /// `nil` where the system does not give memory to execute code in.
  public init?(byteCount: Int = 32 << 20) {
    var first: UnsafeMutableRawPointer?
    var second: UnsafeMutableRawPointer?
    guard unsafe bh_code_buffer(UInt64(byteCount), &first, &second) == 0 else { return nil }
    writable = UInt(bitPattern: first)
    executable = UInt(bitPattern: second)
    self.byteCount = byteCount
  }

  deinit {
    unsafe munmap(UnsafeMutableRawPointer(bitPattern: writable), byteCount)
    unsafe munmap(UnsafeMutableRawPointer(bitPattern: executable), byteCount)
  }
}

/// The translated code of one vCPU in its ``CodeMemory``.
@safe
struct CodeBuffer: ~Copyable {
  // SAFETY: every offset is checked against the memory's size before anything is written.
  private let memory: CodeMemory?
  private let writable: UnsafeMutablePointer<UInt8>?
  private let executable: UInt
  let byteCount: Int
  private(set) var used = 0

  init(_ memory: CodeMemory?) {
    self.memory = memory
    unsafe writable = UnsafeMutablePointer(bitPattern: memory?.writable ?? 0)
    executable = memory?.executable ?? 0
    byteCount = memory?.byteCount ?? 0
  }

  /// The address of the code at an offset.
  func address(_ offset: Int) -> UInt { executable + UInt(offset) }

  func hasRoom(_ count: Int) -> Bool { count <= byteCount - used }

  /// Writes to the memory behind the code, as much as ``Translator/room``; see ``commit(_:)``.
  ///
  /// - Precondition: there is room for it.
  func emitter() -> Emitter {
    guard let writable = unsafe writable, hasRoom(Translator.room) else {
      preconditionFailure("no room for code")
    }
    return unsafe Emitter(
      memory: UnsafeMutableRawPointer(writable + used), room: Translator.room)
  }

  /// Takes so many bytes over that an emitter has written; returns their offset.
  mutating func commit(_ count: Int) -> Int {
    precondition(count <= Translator.room && hasRoom(count), "no room for code")
    defer { used += count }
    return used
  }

  /// Writes the distance of a jump at `site` to the code at `target`.
  mutating func link(site: Int, to target: Int) {
    guard let writable = unsafe writable, site >= 0, site + 4 <= used, target < used else {
      preconditionFailure("no such code")
    }
    let distance = UInt32(bitPattern: Int32(target - site - 4))
    for lane in 0..<4 {
      unsafe writable[site + lane] = UInt8(truncatingIfNeeded: distance >> UInt32(8 * lane))
    }
  }

  /// Makes the code at `offset` a jump to that at `target`.
  mutating func redirect(_ offset: Int, to target: Int) {
    guard let writable = unsafe writable, offset >= 0, offset + 5 <= used else {
      preconditionFailure("no such code")
    }
    unsafe writable[offset] = 0xE9
    link(site: offset + 1, to: target)
  }

  /// Forgets the code from an offset on.
  mutating func truncate(to offset: Int) { used = offset }
}
