# A token for Notifier (JWT, HS256) with Ruby's standard library alone. With the gem jwt, `sign` is
# JWT.encode(claims, secret, "HS256").

require "json"
require "openssl"

module NotifierToken
  LIFETIME_S = 3600

  def self.for(user_id, now: Time.now.to_i)
    sign(
      sub: user_id.to_s,
      iat: now,
      exp: now + LIFETIME_S,
      notifier: { subscribe: ["user/#{user_id}/**", "all"] }
    )
  end

  def self.sign(claims)
    secret = ENV.fetch("NOTIFIER_JWT_SECRET").split.first # the first of several signs; Notifier accepts all of them
    signed = [{ alg: "HS256", typ: "JWT" }, claims].map { |part| encode(JSON.generate(part)) }.join(".")
    "#{signed}.#{encode(OpenSSL::HMAC.digest("SHA256", secret, signed))}"
  end

  def self.encode(bytes)
    [bytes].pack("m0").tr("+/", "-_").delete("=")
  end
end
