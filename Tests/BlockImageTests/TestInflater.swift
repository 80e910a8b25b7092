// SPDX-License-Identifier: Apache-2.0

import BlockImage

/// A plain inflater (RFC 1951) for the tests, which have no zlib.
struct TestInflater: ClusterDecompressor {
  static var isAvailable: Bool { true }

  mutating func inflate(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>) -> Bool {
    var stream = DeflateStream(input: (0..<input.count).map { input[$0] })
    guard stream.run(limit: output.count), stream.output.count == output.count else {
      return false
    }
    for index in 0..<output.count { output[index] = stream.output[index] }
    return true
  }
}

private struct DeflateStream {
  let input: [UInt8]
  var position = 0
  var output: [UInt8] = []

  init(input: [UInt8]) { self.input = input }

  mutating func bits(_ count: Int) -> Int? {
    var value = 0
    for index in 0..<count {
      guard position / 8 < input.count else { return nil }
      value |= Int(input[position / 8] >> (position % 8) & 1) << index
      position += 1
    }
    return value
  }

  mutating func run(limit: Int) -> Bool {
    while true {
      guard let isLast = bits(1), let type = bits(2) else { return false }
      let isGood =
        switch type {
        case 0: stored()
        case 1: compressed(Self.fixedLengths, Self.fixedDistances, limit: limit)
        case 2: dynamic(limit: limit)
        default: false
        }
      guard isGood, output.count <= limit else { return false }
      if isLast == 1 { return true }
    }
  }

  private static let fixedLengths = HuffmanCode(
    [Int](repeating: 8, count: 144) + [Int](repeating: 9, count: 112)
      + [Int](repeating: 7, count: 24) + [Int](repeating: 8, count: 8))
  private static let fixedDistances = HuffmanCode([Int](repeating: 5, count: 30))

  private mutating func stored() -> Bool {
    position = (position + 7) / 8 * 8
    guard let count = bits(16), let check = bits(16), count ^ check == 0xFFFF else { return false }
    for _ in 0..<count {
      guard let byte = bits(8) else { return false }
      output.append(UInt8(byte))
    }
    return true
  }

  private mutating func symbol(_ code: HuffmanCode) -> Int? {
    var word = 0
    for length in 1...15 {
      guard let bit = bits(1) else { return nil }
      word = word << 1 | bit
      if let symbol = code.symbols[HuffmanCode.Key(length: length, word: word)] { return symbol }
    }
    return nil
  }

  private mutating func dynamic(limit: Int) -> Bool {
    guard let lengths = bits(5), let distances = bits(5), let codes = bits(4) else { return false }
    let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
    var first = [Int](repeating: 0, count: 19)
    for index in 0..<codes + 4 {
      guard let length = bits(3) else { return false }
      first[order[index]] = length
    }
    let code = HuffmanCode(first)
    var all: [Int] = []
    while all.count < lengths + 257 + distances + 1 {
      guard let symbol = symbol(code) else { return false }
      switch symbol {
      case 16:
        guard let last = all.last, let more = bits(2) else { return false }
        all += [Int](repeating: last, count: more + 3)
      case 17, 18:
        guard let more = bits(symbol == 17 ? 3 : 7) else { return false }
        all += [Int](repeating: 0, count: more + (symbol == 17 ? 3 : 11))
      default: all.append(symbol)
      }
    }
    return compressed(
      HuffmanCode(Array(all[..<(lengths + 257)])), HuffmanCode(Array(all[(lengths + 257)...])),
      limit: limit)
  }

  private mutating func compressed(_ lengths: HuffmanCode, _ distances: HuffmanCode, limit: Int)
    -> Bool
  {
    while let symbol = symbol(lengths) {
      if symbol == 256 { return true }
      if symbol < 256 {
        output.append(UInt8(symbol))
        continue
      }
      guard output.count <= limit, let length = length(symbol - 257),
        let distanceSymbol = self.symbol(distances),
        let distance = distance(distanceSymbol), distance <= output.count
      else { return false }
      for _ in 0..<length { output.append(output[output.count - distance]) }
    }
    return false
  }

  private mutating func length(_ index: Int) -> Int? {
    if index < 8 { return index + 3 }
    if index == 28 { return 258 }
    let extra = (index - 4) / 4
    guard let more = bits(extra) else { return nil }
    return 3 + (4 + index % 4) << extra + more
  }

  private mutating func distance(_ index: Int) -> Int? {
    if index < 4 { return index + 1 }
    let extra = index / 2 - 1
    guard let more = bits(extra) else { return nil }
    return 1 + (2 + index % 2) << extra + more
  }
}

private struct HuffmanCode {
  struct Key: Hashable {
    var length: Int
    var word: Int
  }

  var symbols: [Key: Int] = [:]

  init(_ lengths: [Int]) {
    var word = 0
    for length in 1...15 {
      for (symbol, own) in lengths.enumerated() where own == length {
        symbols[Key(length: length, word: word)] = symbol
        word += 1
      }
      word <<= 1
    }
  }
}
