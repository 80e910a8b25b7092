// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Operator

@Suite struct MessageSplitterTests {
  private func pieces(_ texts: [UInt8]...) -> [MessageSplitter.Piece] {
    var splitter = MessageSplitter()
    var found: [MessageSplitter.Piece] = []
    for text in texts { splitter.add(text) { found.append($0) } }
    return found
  }

  private func texts(_ input: String...) -> [String] {
    var splitter = MessageSplitter()
    var found: [String] = []
    for text in input {
      splitter.add(Array(text.utf8)) {
        if case .text(let bytes) = $0 { found.append(String(decoding: bytes, as: UTF8.self)) }
      }
    }
    return found
  }

  @Test func `Messages need nothing between them, and may come in parts`() {
    #expect(
      texts("{\"a\":1}{\"b\":[{}]} ", "{\"c", "\":2}") == [
        "{\"a\":1}", "{\"b\":[{}]}", "{\"c\":2}",
      ])
  }

  @Test func `Brackets in strings and escaped quotes do not count`() {
    #expect(texts("{\"}\\\"}\":\"{\"}") == ["{\"}\\\"}\":\"{\"}"])
  }

  @Test func `Something that is no object ends at a space`() {
    #expect(texts("hello world\n") == ["hello", "world"].map { $0 + ($0 == "world" ? "\n" : " ") })
  }

  @Test func `A string that is never closed ends with its line`() {
    #expect(texts("{\"a\n{\"b\":1}") == ["{\"a\n", "{\"b\":1}"])
  }

  @Test func `What is too deep is refused once, and the next line is heard`() {
    let deep = [UInt8](repeating: 0x5B, count: 1000)
    #expect(
      pieces(deep, Array("\n{}".utf8)) == [
        .refused("brackets more than 128 deep"), .text(Array("{}".utf8)),
      ])
  }

  @Test func `What is too long is refused once, and the next line is heard`() {
    let long = [UInt8](repeating: 0x61, count: 1 << 19)
    #expect(
      pieces(long, long, long, Array("\n{}".utf8)) == [
        .refused("a message of more than 1048576 bytes"), .text(Array("{}".utf8)),
      ])
  }
}
