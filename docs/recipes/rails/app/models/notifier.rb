module Notifier
  TOKEN_LIFETIME = 1.hour

  class << self
    # Publish with the transaction that is under way: when it commits, and not if it is rolled back.
    def publish(topic, data)
      call "select notifier.publish($1, $2::text)", topic, data.to_json
    end

    # End what this user follows, and refuse the tokens issued until now.
    def revoke(user_id)
      call "select notifier.revoke($1)", user_id.to_s
    end

    def token_for(user_id)
      now = Time.now.to_i
      claims = {
        sub: user_id.to_s,
        iat: now,
        exp: now + TOKEN_LIFETIME.to_i,
        notifier: { subscribe: ["user/#{user_id}/**", "all"] }
      }
      # The first of several secrets signs; Notifier accepts all of them.
      JWT.encode(claims, ENV.fetch("NOTIFIER_JWT_SECRET").split.first, "HS256")
    end

    private

    def call(statement, *values)
      ActiveRecord::Base.connection.exec_query(statement, "Notifier", values)
    end
  end
end
