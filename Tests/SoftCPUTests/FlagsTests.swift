// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import SoftCPU

@Suite("Lazy flags")
struct FlagsTests {
  @Test("every combination of the six flags is kept", arguments: 0..<64)
  func combinations(number: Int) {
    let places: [UInt64] = [0, 2, 4, 6, 7, 11]
    let bits = places.enumerated().reduce(UInt64(0)) { sum, place in
      sum | (UInt64(number >> place.offset & 1) << place.element)
    }
    var flags = LazyFlags()
    flags.set(bits)
    #expect(flags.bits == bits)
  }
}
