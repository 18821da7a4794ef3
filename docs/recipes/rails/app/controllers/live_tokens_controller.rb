class LiveTokensController < ApplicationController
  before_action :require_login

  def show
    response.headers["Cache-Control"] = "no-store"
    render json: { token: Notifier.token_for(current_user_id) }
  end
end
