<?php

/**
 * Checks tokens.json, signatures.json and cursors.json with nothing but PHP's own functions,
 * then prints tokens issued here for tests/test_vectors.py to verify.
 */

declare(strict_types=1);

function load(string $name): array
{
    return json_decode(file_get_contents(__DIR__ . "/$name.json"), true, 64, JSON_THROW_ON_ERROR);
}

function b64(string $bytes): string
{
    return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
}

function token(string $json, string $key): string
{
    $value = b64($json);
    $derived = hash_hmac('sha256', 'push.connect.v1', $key, true);
    return $value . '.' . b64(hash_hmac('sha256', $value, $derived, true));
}

function check(bool $holds, string $name): void
{
    global $checked;
    $checked++;
    if (!$holds) {
        fwrite(STDERR, "wrong: $name\n");
        exit(1);
    }
}

$checked = 0;
foreach (load('tokens')['signing'] as $case) {
    check(token($case['json'], $case['key']) === $case['token'], $case['name']);
}
foreach (load('signatures')['cases'] as $case) {
    if ($case['valid'] && isset($case['body'])) {
        $signed = "{$case['id']}.{$case['timestamp']}.{$case['body']}";
        $ours = array_map(static fn (string $secret): string => 'v1,' . base64_encode(
            hash_hmac('sha256', $signed, base64_decode(substr($secret, 6), true), true)
        ), $case['secrets']);
        check((bool) array_intersect($ours, explode(' ', $case['signature'])), $case['name']);
    }
}
foreach (load('cursors')['entries'] as $case) {
    $short = static fn (string $text): string => substr(b64(hash('sha256', $text, true)), 0, 6);
    check($case['entry'] === implode('.', [
        $short($case['channel']),
        base_convert((string) $case['epoch'], 10, 36),
        base_convert((string) $case['offset'], 10, 36),
        $case['id'] === null ? '0' : $short($case['id']),
    ]), $case['entry']);
}

$claims = ['v' => 1, 'sub' => '42', 'sid' => 's', 'iat' => 1800000000, 'exp' => 1800000600,
    'sub_ch' => ['node:*', 'a/b'], 'pub_ch' => [], 'name' => 'Žofie Nguyễn 🌻 </script>'];
$issued = [];
foreach ([0, JSON_UNESCAPED_UNICODE, JSON_UNESCAPED_SLASHES, JSON_PRETTY_PRINT] as $flags) {
    $issued[] = token(json_encode($claims, $flags | JSON_THROW_ON_ERROR), 'klíč-z-klíčenky-správce-webu-01');
}
echo json_encode(['checked' => $checked, 'issued' => $issued], JSON_THROW_ON_ERROR);
