"""Known answers for the formats of KES, made with other libraries than the product's and without KES.

    pip install cryptography msgpack protobuf
    python3 make.py > kes.json

The same each time: whatever is random in use is a hash of its name here. HChaCha20 is taken from the key stream of
ChaCha20 (OpenSSL), whose first block is the same rounds with the input added: subtracting it leaves HChaCha20.
"""

import base64
import hashlib
import hmac
import json
import struct

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2


def drawn(name, length):
    return b"".join(hashlib.sha256(f"{name} {block}".encode()).digest() for block in range(length // 32 + 1))[:length]


def b64(data):
    return base64.b64encode(data).decode()


def hchacha20(key, vector):
    stream = Cipher(algorithms.ChaCha20(key, vector), mode=None).encryptor().update(bytes(64))
    block = struct.unpack("<16I", stream)
    constants = struct.unpack("<4I", b"expand 32-byte k")
    inputs = struct.unpack("<4I", vector)
    words = [(block[at] - constants[at]) & 0xFFFFFFFF for at in range(4)]
    words += [(block[12 + at] - inputs[at]) & 0xFFFFFFFF for at in range(4)]
    return struct.pack("<8I", *words)


def sealed(cipher, key, vector, nonce, context, plaintext):
    if cipher == "AES256":
        return AESGCM(hmac.digest(key, vector, "sha256")).encrypt(nonce, plaintext, context)
    return ChaCha20Poly1305(hchacha20(key, vector)).encrypt(nonce, plaintext, context)


LONG = {"AES256": "AES256-GCM_SHA256", "ChaCha20": "XCHACHA20-POLY1305"}
AEAD = {"AES256": "AES-256-GCM-HMAC-SHA-256", "ChaCha20": "ChaCha20Poly1305"}


def ciphertexts():
    for cipher in LONG:
        for at, (plaintext, context) in enumerate(
            [(32, 0), (0, 0), (1, 1), (16, 0), (17, 40), (1000, 300), (70000, 3)]
        ):
            name = f"{cipher} {at}"
            key, vector, nonce = drawn(f"{name} key", 32), drawn(f"{name} vector", 16), drawn(f"{name} nonce", 12)
            plaintext, context = drawn(f"{name} plaintext", plaintext), drawn(f"{name} context", context)
            text = sealed(cipher, key, vector, nonce, context, plaintext)
            key_id = hashlib.sha256(key).hexdigest()[:32]
            members = {"aead": AEAD[cipher], "iv": b64(vector), "nonce": b64(nonce), "bytes": b64(text)}
            whole = {
                "cipher": cipher,
                "key": key.hex(),
                "context": context.hex(),
                "vector": vector.hex(),
                "nonce": nonce.hex(),
            }
            if len(plaintext) > 2000:
                # Too long to be written down three times: the hash has to do.
                yield whole | {"plaintext_of": f"{name} plaintext", "length": len(plaintext),
                               "raw_sha256": hashlib.sha256(text + vector + nonce).hexdigest()}
                continue
            yield whole | {
                "plaintext": plaintext.hex(),
                "raw": (text + vector + nonce).hex(),
                "json": json.dumps(members, separators=(",", ":")),
                "json_with_id": json.dumps({"id": key_id} | members, separators=(",", ":")),
                "message_pack": msgpack.packb([LONG[cipher], key_id, vector, nonce, text], use_bin_type=True).hex(),
            }


def messages():
    """The message of a key file, from a description of it."""
    file = descriptor_pb2.FileDescriptorProto(name="kes.proto", package="kes", syntax="proto3",
                                              dependency=["google/protobuf/timestamp.proto"])
    field = descriptor_pb2.FieldDescriptorProto
    for name, fields in [
        ("SecretKey", [("Key", 1, field.TYPE_BYTES, None), ("Type", 2, field.TYPE_UINT32, None)]),
        ("HMACKey", [("Key", 1, field.TYPE_BYTES, None), ("Hash", 2, field.TYPE_UINT32, None)]),
        ("KeyVersion", [("Key", 1, field.TYPE_MESSAGE, ".kes.SecretKey"), ("HMACKey", 2, field.TYPE_MESSAGE, ".kes.HMACKey"),
                        ("CreatedAt", 3, field.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
                        ("CreatedBy", 4, field.TYPE_STRING, None)]),
    ]:
        message = file.message_type.add(name=name)
        for member, number, kind, of in fields:
            message.field.add(name=member, number=number, type=kind, type_name=of, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kes.KeyVersion"))


def key_files():
    version = messages()
    by = hashlib.sha256(b"somebody").hexdigest()
    for kind, cipher in enumerate(LONG, 1):
        for hmac_key, created in [(True, 1_700_000_000_123_456), (False, None)]:
            key, mac = drawn(f"file {cipher}", 32), drawn(f"file {cipher} hmac", 32)
            message = version()
            message.Key.Key, message.Key.Type = key, kind
            if hmac_key:
                message.HMACKey.Key, message.HMACKey.Hash = mac, 1
            if created:
                message.CreatedAt.seconds, message.CreatedAt.nanos = created // 10**6, created % 10**6 * 1000
                message.CreatedBy = by
            yield {"file": b64(message.SerializeToString()), "cipher": cipher, "key": key.hex(),
                   "hmac_key": mac.hex() if hmac_key else None, "created_us": created,
                   "created_by": by if created else None}
    key = drawn("json file", 32)
    plain = {"cipher": "AES256", "key": key.hex(), "hmac_key": None, "created_us": None, "created_by": None}
    yield plain | {"file": json.dumps({"bytes": b64(key)})}
    for cipher in LONG:
        file = {"bytes": b64(key), "algorithm": LONG[cipher], "created_at": "2022-11-05T04:03:02.1Z", "created_by": by}
        yield plain | {"file": json.dumps(file), "cipher": cipher, "created_us": 1_667_620_982_100_000, "created_by": by}


def api_keys():
    for name in ["one", "two"]:
        seed = drawn(f"api key {name}", 32)
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        yield {"text": "kes:v1:" + b64(b"\0" + seed), "seed": seed.hex(), "identity": hashlib.sha256(spki).hexdigest()}


def macs():
    for length in [0, 1, 64, 65, 1000]:
        key, message = drawn(f"mac {length}", 32), drawn(f"message {length}", length)
        yield {"key": key.hex(), "message": message.hex(), "mac": hmac.digest(key, message, "sha256").hex()}


print(json.dumps({
    "ciphertexts": list(ciphertexts()),
    "key_files": list(key_files()),
    "api_keys": list(api_keys()),
    "macs": list(macs()),
}, indent=1))
